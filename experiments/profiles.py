"""A profile: a data set, sizes, iterations and a backbone for the rows of a table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pspnet_repro import PSPNet
from pspnet_repro.data import scenes
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.classes import Classes, known_classes
from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation.protocol import MULTI_SCALE, Protocol, preset
from pspnet_repro.model.settings import BLOCKS

ADE20K, CAMVID = known_classes("ade20k"), known_classes("camvid")


@dataclass(frozen=True)
class Profile:
    """Settings shared by all rows."""

    name: str  # what `--profile` takes
    data: str
    # (data folder given or None, cache folder) -> folder with train.txt and val.txt
    folder: Callable[[Path | None, Path], Path]
    classes: tuple[str, ...]
    palette_rgb: tuple[tuple[int, int, int], ...]
    contextual: tuple[bool, ...]  # whether each class needs context; empty where not known
    model: dict[str, object]  # keyword arguments of PSPNet besides the row's
    train: dict[str, object]  # fields of TrainSettings besides model, data, list and seed
    base_size: int  # long side in pixels, less 1, at which the network is tested
    differs: str  # from the paper's setting, in words
    # For each of the paper's depths, the keyword arguments of PSPNet that stand for it.
    depths: dict[int, dict] = field(default_factory=lambda: {d: {"depth": d} for d in BLOCKS})
    zero_is_void: bool = False  # of the settings, see TrainSettings
    fidelity_scales: tuple[float, ...] = MULTI_SCALE  # of the tests of the table `fidelity`
    fidelity_note: str = ""  # what must be known of that table, in words
    alike: int = 1  # neighbours in the list of test images that look alike, as a video's frames do
    rows_at_once: int = 1  # trainings in parallel
    estimate: bool = False  # say before the start how long it will take
    preset: str = "caffe"  # of evaluation.PRESETS, whose tests the rows have
    # Networks that the folder systems has for it: "mini", or "published" with their own recipes.
    systems: str | None = None

    @property
    def crop_size(self) -> int:
        """Pixels a side, of training and test."""
        return self.train["crop_size"]

    @property
    def names_and_colours(self) -> Classes:
        """Of the classes."""
        return Classes(self.classes, self.palette_rgb)

    @property
    def protocol(self) -> Protocol:
        """Of the tests, and of the looks at a network during its training."""
        return preset(self.preset, self.base_size, self.crop_size)

    def receptive_field(self, depth: int) -> int:
        """Pixels a side that the network of a depth sees without the pyramid, see PSPNet."""
        with torch.device("meta"):
            return PSPNet(len(self.classes), bins=(),
                          **{**self.model, **self.depths[depth]}).receptive_field()


def _given(data, _cache):
    if data is None:
        raise UsageError("--data must name the data set's folder for this profile")
    return Path(data)


def _scenes(data, cache):
    return Path(data) if data is not None else scenes.write_scenes(cache)


_CAMVID = {
    "data": "camvid", "folder": _given, "classes": CAMVID.names, "palette_rgb": CAMVID.palette_rgb,
    "contextual": (), "base_size": 480, "alike": 10,
    "model": {"width": 0.5, "stem": "classic", "stem_width": 64}}
_CAMVID_DIFFERS = (
    "367 street photographs of 480x360 pixels, tested at that size; 11 classes; half-width ResNets "
    "with a 7x7 stem; initial weights from --backbone, meant for open_nsfw (trained without "
    "padding in the first pooling), and random at depths without it; ")

PROFILES = {profile.name: profile for profile in (
    Profile(
        # Lists of all versions of the drawing are alike.
        name="mini", data=f"scenes-v{scenes.VERSION}", folder=_scenes, classes=scenes.CLASSES,
        palette_rgb=scenes.PALETTE_RGB, contextual=scenes.CONTEXTUAL,
        model={"width": 0.125, "stem": "classic", "stem_width": 16, "dilations": (1, 1, 1, 1),
               "stride_in": "3x3"},
        depths={50: {"blocks": (1, 1, 1, 1)}, 101: {"blocks": (1, 1, 2, 1)},
                152: {"blocks": (1, 2, 2, 1)}, 269: {"blocks": (1, 2, 3, 2)}},
        train={"crop_size": scenes.SIZE, "batch_size": 8, "max_iter": 600, "threads": 1,
               "augmentation": Augmentation(scales=None, rotation=0.0, blur=False)},
        base_size=scenes.SIZE - 1, rows_at_once=2, fidelity_scales=(1.0,), systems="mini",
        fidelity_note="Every scene is as large as the crop and is tested at its own size, because "
                      "a smaller window would cut off the part that decides. So resizing, padding "
                      "and windows have no effect. Without the + 1 every scene shrinks by one "
                      "pixel and is resampled; hatches, which are small and look like their "
                      "ground, lose by far the most.",
        differs="drawn scenes of 12 classes; random initial weights (the paper starts from "
                "ImageNet); a 7x7 stem; narrow bottlenecks without dilation, one per stage at "
                "depth 50, so that the receptive field is less than half the crop; crops of 185 "
                "pixels; 600 steps of batch 8; mirror as the only augmentation, because a resized "
                "crop can lose the part of the scene that decides"),
    Profile(
        **_CAMVID, name="camvid",
        train={"crop_size": 185, "batch_size": 8, "max_iter": 1900, "threads": 1},
        rows_at_once=2, fidelity_scales=(0.5, 1.0),
        fidelity_note="Tests use two of the authors' six scales, to save time. At scale 0.5 images "
                      "shrink and windows are padded; at scale 1 windows overlap.",
        differs=_CAMVID_DIFFERS + "crops of 185 pixels; 1900 steps of batch 8"),
    Profile(
        **_CAMVID, name="camvid-281",
        train={"crop_size": 281, "batch_size": 8, "max_iter": 800, "threads": 1},
        rows_at_once=2, fidelity_scales=(0.5, 1.0),
        fidelity_note="Padding occurs in 19 of 100 crops of 281 pixels, but in 1 of 100 crops of "
                      "185, so this profile shows the cost of padding in training. Tests use two "
                      "of the authors' six scales, 0.5 and 1.",
        differs=_CAMVID_DIFFERS + "crops of 281 pixels; 800 steps of batch 8"),
    Profile(  # 119 passes, as many as the paper's over ADE20K
        **_CAMVID, name="camvid-329", estimate=True,
        train={"crop_size": 329, "batch_size": 16, "max_iter": 2730},
        differs=_CAMVID_DIFFERS + "crops of 329 pixels; 2730 steps of batch 16"),
    Profile(
        name="paper", data="ade20k", folder=_given, classes=ADE20K.names,
        palette_rgb=ADE20K.palette_rgb, contextual=(), model={},
        train={"crop_size": 473, "batch_size": 16, "max_iter": 150_000}, base_size=512,
        zero_is_void=True, estimate=True, systems="published",
        differs="random initial weights at depths without --backbone (the paper starts from "
                "ImageNet); the blocks of a published ResNet of 269 layers at depth 269"),
)}
