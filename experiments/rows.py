"""The rows of the tables: data, one line a row."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from pspnet_repro.data.augment import NO_AUGMENTATION
from pspnet_repro.defaults import VGG16
from pspnet_repro.evaluation.protocol import MULTI_SCALE, PRESETS
from pspnet_repro.weights.torchvision import INPUT

from .systems.network import NAMES


@dataclass(frozen=True)
class Row:
    """One network, trained and tested in one way.

    Rows of equal `model` and `train` share a training.

    Attributes:
        name: what `--rows` takes, and the key in paper.json; the same name in two tables is the
            same row.
        model: keyword arguments of PSPNet that make the row; its depth is one of the profile's.
        train: fields of TrainSettings that differ from the profile's; `padding` is the
            augmentation's alone.
        test: fields of Protocol that differ from the profile's; `stride` is a share of the crop,
            and scales may be PROFILE_SCALES.
        tested: arguments of PSPNet that the tested network has otherwise than the trained one.
        label: for tables that the paper does not have; else the paper's, in paper.json.
        system: a network of Caffe's in place of a PSPNet: (TRAIN.prototxt,), or with its
            SOLVER.prototxt; (): the one of this name in the folder systems.
    """

    name: str
    model: dict[str, object] = field(default_factory=dict)
    train: dict[str, object] = field(default_factory=dict)
    test: dict[str, object] = field(default_factory=dict)
    label: str = ""
    system: tuple[Path, ...] | None = None
    tested: dict[str, object] = field(default_factory=dict)

    @property
    def backbone(self) -> int | str:
        """What `--backbone` calls its backbone: the paper's depth, or VGG16."""
        return self.model.get("depth", 50) if self.system is None else VGG16


# What pictures and curves compare.
BASELINE, FULL = "baseline", "b1236-ave-dr"
NO_PYRAMID, PYRAMID = {"bins": ()}, {"bins": (1, 2, 3, 6), "pool": "ave", "reduce": True}
NO_BRANCH = {**NO_PYRAMID, "aux": False}
MS = {"scales": MULTI_SCALE}
PROFILE_SCALES = "the profile's fidelity_scales"
AUTHORS = {"scales": PROFILE_SCALES}
# Where the bottlenecks of the row "authors" have no stride.
OTHER_PLACE = {"stride_in": "the other place"}
# Their later program's training. Its stride is in the 3x3 at every depth.
SEMSEG = Row("semseg", {**PYRAMID, "stride_in": "3x3", "bn_momentum": 0.1, "variance": "torch",
                        "spatial_dropout": True, **INPUT},
             {"rate_in_momentum": False, "decay_bn": True, "padding": "centre",
              "guidance": "full"},
             {**AUTHORS, **PRESETS["semseg"]}, "semseg's recipe, training and test")

_BASELINE, _NO_AUX, _FULL = Row(BASELINE, NO_PYRAMID), Row("no-aux", NO_BRANCH), Row(FULL, PYRAMID)
_FULL_MS = Row("b1236-ave-dr-ms", PYRAMID, test=MS)
_DEPTH_269 = Row("depth-269", {**PYRAMID, "depth": 269})
_DEPTH_269_MS = Row("depth-269-ms", {**PYRAMID, "depth": 269}, test=MS)


def _retrained(name, label, model=None, train=None):
    return Row(name, {**PYRAMID, **(model or {})}, train or {}, AUTHORS, label)


def _retested(name, label, **test):
    return Row(name, PYRAMID, test={**AUTHORS, **test}, label=label)


TABLES = {
    "1": (
        _BASELINE,
        Row("b1-max", {"bins": (1,), "pool": "max", "reduce": False}),
        Row("b1-ave", {"bins": (1,), "pool": "ave", "reduce": False}),
        Row("b1236-max", {"bins": (1, 2, 3, 6), "pool": "max", "reduce": False}),
        Row("b1236-ave", {"bins": (1, 2, 3, 6), "pool": "ave", "reduce": False}),
        Row("b1236-max-dr", {"bins": (1, 2, 3, 6), "pool": "max", "reduce": True}),
        _FULL,
    ),
    "2": (
        _NO_AUX,
        Row("aux-0.3", NO_PYRAMID, {"aux_weight": 0.3}),
        _BASELINE,
        Row("aux-0.6", NO_PYRAMID, {"aux_weight": 0.6}),
        Row("aux-0.9", NO_PYRAMID, {"aux_weight": 0.9}),
    ),
    "3": (
        _FULL,
        Row("depth-101", {**PYRAMID, "depth": 101}),
        Row("depth-152", {**PYRAMID, "depth": 152}),
        _DEPTH_269,
        _FULL_MS,
        Row("depth-101-ms", {**PYRAMID, "depth": 101}, test=MS),
        Row("depth-152-ms", {**PYRAMID, "depth": 152}, test=MS),
        _DEPTH_269_MS,
    ),
    "4": (
        *(Row(name, system=()) for name in NAMES),
        Row("no-augmentation", NO_BRANCH, {"augmentation": NO_AUGMENTATION}),
        _NO_AUX,
        _BASELINE,
        _FULL,
        _DEPTH_269,
        _DEPTH_269_MS,
    ),
    "fidelity": (
        Row("authors", PYRAMID, test=AUTHORS, label="the authors' program"),
        _retested("test-half-pixel", "logits grow by half-pixel centres", align_corners=False),
        _retested("test-no-antialias", "images resized without antialiasing", antialias=False),
        _retested("test-probabilities", "probabilities of the mirror image averaged, not logits",
                  merge="probabilities"),
        _retested("test-no-plus-one", "long side without the + 1", plus_one=False),
        _retested("test-centre", "padding on all sides", padding="centre"),
        _retested("test-whole", "whole image instead of windows", whole_image=True),
        _retested("test-stride", "windows side by side, without overlap", stride=1.0),
        _retested("test-no-flip", "no mirror image", flip=False),
        Row("test-bottleneck-stride", PYRAMID, {}, AUTHORS,
            "stride in the bottleneck's other convolution, same weights", tested=OTHER_PLACE),
        _retrained("train-rate-outside", "rate outside the momentum",
                   train={"rate_in_momentum": False}),
        _retrained("train-biased", "biased variance", {"variance": "biased"}),
        _retrained("train-torch-variance", "torch's variance: biased normalizes, unbiased is kept",
                   {"variance": "torch"}),
        _retrained("train-decay-bn", "weight decay on BN", train={"decay_bn": True}),
        _retrained("train-spatial-dropout", "dropout of whole channels",
                   {"spatial_dropout": True}),
        _retrained("train-centre", "crops padded on all sides in training",
                   train={"padding": "centre"}),
        Row("centre", PYRAMID, {"padding": "centre"}, {**AUTHORS, "padding": "centre"},
            "padding on all sides in training and test"),
        _retrained("train-full-labels", "loss at full size", train={"guidance": "full"}),
        _retrained("train-bottleneck-stride", "stride in the bottleneck's other convolution",
                   OTHER_PLACE),
        _retrained("train-bn-momentum", "BN's running values take 0.1 of each batch, not 0.05",
                   {"bn_momentum": 0.1}),
        _retrained("train-imagenet-input", "input as ImageNet networks of torch have it", INPUT),
        _retrained("train-bfloat16", "convolutions and products of the training in bfloat16",
                   train={"precision": "bfloat16"}),
        replace(SEMSEG, name="train-semseg", test=AUTHORS,
                label="semseg's recipe, training alone"),
        SEMSEG,
    ),
}

ROWS = {row.name: row for rows in TABLES.values() for row in rows}
