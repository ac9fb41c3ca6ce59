"""How a training runs, beside the settings that decide its weights."""

import dataclasses
from collections.abc import Callable, Iterable

from pspnet_repro.training.curve import Watch
from pspnet_repro.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a training runs: its weights do not depend on it."""

    # Processes that read images ahead, of each training process; None: see
    # data.training_sequence.spare_cores.
    workers: int | None = 0
    # Steps after which losses and signals are read, and all may be saved; None: 1 on the CPU, 10 on
    # a GPU, which waits for them.
    steps_unread: int | None = None
    cuda_graph: bool = False  # see training.graph.GraphedPasses
    checkpoint_seconds: float = 120.0  # least time between checkpoints
    progress: bool = True  # show a progress bar
    log_seconds: float = 60.0  # least time between two lines of progress in log.txt
    tensorboard: bool = False  # write scalars into the folder `tensorboard`
    validation: Validation | None = None  # tests along the way, validation.jsonl and best.pt
    watch: Watch | None = None  # for curve.jsonl, see training.curve.Curve
    # Called by the first process after the last step, before weights.pt is there; not where it was
    # there already.
    before_weights: Callable[[], object] = lambda: None
    # Called by the first process when weights.pt is there; gives lines for log.txt and the screen.
    last_words: Callable[[], Iterable[str]] = lambda: ()
    # What weights.pt and best.pt tell of their test beside the settings: "names", "palette_rgb",
    # "base_size", see evaluation.network_file.
    facts: dict = dataclasses.field(default_factory=dict)
