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
    its result depends on nothing else.

    Attributes:
        model: keyword arguments of PSPNet; `train` adds what its initial weights decide.
        data: name of the data set, for people.
        list_sha256: of the training list and the label map, see data.data_set.DataSet.digest.
        zero_is_void: label files hold 0 = void, k + 1 = class k (ADE20K).
        crop_size, batch_size: pixels a side; images a backward pass, over all processes.
        iter_size: backward passes a step.
        max_iter: steps.
        base_lr, power, momentum, weight_decay: the solver's (paper, 5.1).
        aux_weight: of the auxiliary branch's loss.
        guidance: "eighth" or "full", see loss.guided_loss.
        rate_in_momentum, decay_bn: the original's solver (true, false) or a port's, see CaffeSGD
            and parameter_groups.
        augmentation: what is drawn for each image.
        seed: of initial weights, order, augmentation and dropout.
        threads: of the computation in each process; sums, and so bits, can depend on it.
        initial_weights: digest of what the weights start from, see weights_sha256; set by `train`.
        solverstate: digest of Caffe's solverstate that the training resumes; set by `train`.
        freeze_bn, freeze_backbone: what does not learn, see freezing.freeze.
        precision: of convolutions and products, one of PRECISIONS. "bfloat16" is autocast: weights,
            gradients, momentum, statistics of BN and the loss stay float32.
    """

    rate_option: ClassVar[str] = "--base-lr"

    model: dict
    data: str
    list_sha256: str
    zero_is_void: bool = False
    crop_size: int = 473
    batch_size: int = 16
    iter_size: int = 1
    max_iter: int = 150_000
    base_lr: float = 0.01
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 1e-4
    aux_weight: float = 0.4
    guidance: str = "eighth"
    rate_in_momentum: bool = True
    decay_bn: bool = False
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    threads: int = 2
    initial_weights: str | None = None
    solverstate: str | None = None
    freeze_bn: str | None = None
    freeze_backbone: bool = False
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
