"""What a training is asked for."""

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch

from pspnet_repro.data.augment import Augmentation


def seed_dropout(seed: int, number: int) -> None:
    """Seed torch's generator, from which training draws dropout alone, for a process or a step."""
    draw = np.random.SeedSequence((seed, 2, number))
    torch.manual_seed(int(draw.generate_state(1, np.uint64)[0]))


@dataclass(frozen=True)
class TrainSettings:
    """What a training is asked for: with the same program, kind of machine and number of processes
    its result depends on nothing else."""

    rate_option: ClassVar[str] = "--base-lr"

    model: dict  # keyword arguments of PSPNet; `train` adds what its initial weights decide
    data: str  # name of the data set, for people
    list_sha256: str  # of the training list and the label map, see DataSet.digest
    zero_is_void: bool = False  # label files hold 0 = void, k + 1 = class k (ADE20K)
    crop_size: int = 473  # pixels a side
    batch_size: int = 16  # images a backward pass, over all processes
    iter_size: int = 1  # backward passes a step
    max_iter: int = 150_000  # steps
    base_lr: float = 0.01  # these and the next three: paper, 5.1
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 1e-4
    aux_weight: float = 0.4  # of the auxiliary branch's loss
    guidance: str = "eighth"  # or "full", see loss.guided_loss
    rate_in_momentum: bool = True  # the original's solver, or a port's, see CaffeSGD
    decay_bn: bool = False  # see parameter_groups
    augmentation: Augmentation = Augmentation()
    seed: int = 0  # of initial weights, order, augmentation and dropout
    threads: int = 2  # of the computation in each process; sums, and so bits, can depend on it
    initial_weights: str | None = None  # see weights_sha256; set by `train`
    solverstate: str | None = None  # digest of Caffe's that the training resumes; set by `train`
    freeze_bn: str | None = None  # see freezing.freeze
    freeze_backbone: bool = False
    # Of convolutions and products, one of PRECISIONS. "bfloat16" is autocast: weights, gradients,
    # momentum, statistics of BN and the loss stay float32.
    precision: str = "float32"

    def to_json(self) -> dict:
        """Plain data, the same after a round trip through JSON.

        What is not frozen, and float32, is left out: digests and folders of trainings without these
        stay valid.
        """
        plain = asdict(self)
        for name in ("solverstate", "freeze_bn", "freeze_backbone", "precision"):
            if plain[name] in (None, False, "float32"):
                del plain[name]
        return json.loads(json.dumps(plain))

    @classmethod
    def from_json(cls, plain: dict) -> "TrainSettings":
        """The settings that `to_json` gave."""
        return cls(**{**plain, "augmentation": Augmentation(**plain["augmentation"])})
