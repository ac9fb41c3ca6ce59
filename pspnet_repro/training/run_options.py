"""How a training runs, beside the settings that decide its weights."""

import dataclasses
from collections.abc import Callable, Iterable

from pspnet_repro.training.curve import Watch
from pspnet_repro.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a training runs: its weights do not depend on it.

    Attributes:
        workers: processes that read images ahead, of each training process; None: see
            data.loading.spare_cores.
        steps_unread: steps after which losses and signals are read, and all may be saved; None: 1
            on the CPU, 10 on a GPU, which waits for them.
        cuda_graph: see training.graph.GraphedPasses.
        checkpoint_seconds: least time between checkpoints.
        progress: show a progress bar.
        log_seconds: least time between two lines of progress in log.txt.
        tensorboard: write scalars into the folder `tensorboard`.
        validation: tests along the way, validation.jsonl and best.pt.
        watch: (interval, function) for curve.jsonl, see training.curve.Curve.
        before_weights: called by the first process after the last step, before weights.pt is
            there; not where it was there already.
        last_words: called by the first process when weights.pt is there; gives lines for log.txt
            and the screen.
        facts: what weights.pt and best.pt tell of their test beside the settings: "names",
            "palette_rgb", "base_size", see evaluation.network_file.
    """

    workers: int | None = 0
    steps_unread: int | None = None
    cuda_graph: bool = False
    checkpoint_seconds: float = 120.0
    progress: bool = True
    log_seconds: float = 60.0
    tensorboard: bool = False
    validation: Validation | None = None
    watch: Watch | None = None
    before_weights: Callable[[], object] = lambda: None
    last_words: Callable[[], Iterable[str]] = lambda: ()
    facts: dict = dataclasses.field(default_factory=dict)
