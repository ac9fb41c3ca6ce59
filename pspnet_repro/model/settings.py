"""The settings of a network as one typed object: of its module, its file and the commands.

Nothing here is slow to import: the commands' help shows these choices.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field, fields
from typing import ClassVar, Literal, get_args, get_origin

from pspnet_repro.defaults import VARIANCES
from pspnet_repro.words import check_choice, plain

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 269: (3, 30, 48, 8)}
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4  # of a bottleneck's output against its inside
REDUCTION = 4  # of the head's convolutions against the features that they read
MAX_WIDTH = 8  # times the released networks: beyond is a slip, and exhausts the memory
MAX_BLOCKS = 1000  # a stage
MAX_STRIDE, MAX_DILATION = 8, 64  # of a stage: the released networks have 2 and 4
MAX_INPUT = 1e6  # of what is subtracted from pixels, and divides them, as float32
MAX_BINS = 128  # a side of a pyramid level
MEAN_BGR = (103.939, 116.779, 123.68)  # what the original subtracts from pixels of 0..255

Numbers = tuple[int, ...]
Reals = tuple[float, ...]
Place = Literal["1x1", "3x3"]

_TYPES = {
    int: ("a whole number", lambda value: type(value) is int),
    float: ("a finite number", lambda value: (type(value) in (int, float)
                                              and abs(value) < math.inf)),
    bool: ("true or false", lambda value: type(value) is bool),
    str: ("text", lambda value: type(value) is str),
    Numbers: ("a list of whole numbers", lambda value: (
        type(value) in (list, tuple) and all(type(item) is int for item in value))),
    Reals: ("a list of finite numbers", lambda value: (
        type(value) in (list, tuple)
        and all(type(item) in (int, float) and abs(item) < math.inf for item in value)))}


def _check(condition, message):
    if not condition:
        raise ValueError(message)


def _annotated(annotation):
    """(type, choices or (), whether None is allowed) of an argument's annotation."""
    annotation = annotation.type if isinstance(annotation, InitVar) else annotation
    optional = type(None) in get_args(annotation)
    annotation = get_args(annotation)[0] if optional else annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return type(choices[0]) if choices else annotation, choices, optional


@dataclass(frozen=True, eq=False, kw_only=True)
class BackboneSettings(Mapping):
    """The arguments of ResNet, the released networks' by default; as a mapping, those that make it
    again.

    Raises:
        TypeError: an argument of another type, a name that is none, or one that is missing.
        ValueError: an argument out of range.
    """

    blocks: Numbers  # bottlenecks of each of the four stages, at least 1
    # "deep" (3x3 stride 2, 3x3, 3x3) or "classic" (7x7 stride 2), then pool1.
    stem: Literal["deep", "classic"] = "deep"
    stem_width: int = 64  # of the first convolutions; a deep stem ends with twice as many channels
    # Channels inside the bottlenecks of each stage, which leave it with four times as many.
    widths: Numbers = WIDTHS
    # Of the 3x3 convolutions of each stage. A stage without dilation has stride 2, dilation 1.
    strides: Numbers = (1, 2, 1, 1)
    dilations: Numbers = (1, 1, 2, 4)
    stride_in: Place = "1x1"  # the convolution of a bottleneck that has its stride
    pool_padding: Literal[0, 1] = 1  # of pool1; many ImageNet networks have 0
    # Whether pool1 has a window for the last odd pixel, as in Caffe; without, as in torch, images
    # need not be stride * k + 1 pixels.
    ceil_mode: bool = True
    contract_dilation: bool = False  # a stage's first bottleneck has half of its dilation
    # How `PSPNet.prepare` makes the input: the order of its channels, and in this order what is
    # subtracted from values 0..255, then what divides them.
    input_order: Literal["bgr", "rgb"] = "bgr"
    input_mean: Reals = MEAN_BGR
    input_std: Reals = (1.0, 1.0, 1.0)

    INPUT: ClassVar = ("input_order", "input_mean", "input_std")
    # What decides whether weights fit, in the order of messages.
    STRUCTURE: ClassVar = ("stem", "stem_width", "widths", "blocks", "stride_in", "ceil_mode",
                           *INPUT)
    # Options of other programs' networks. The mapping leaves out those that are as in Caffe: files
    # of Caffe's networks, whose digests identify trainings, stay as they were before these options.
    OTHERS: ClassVar = ("ceil_mode", "contract_dilation", *INPUT)
    # What a PSPNet does otherwise than an ImageNet network of the same weights.
    DILATED: ClassVar = ("strides", "dilations", "pool_padding")

    def __post_init__(self):
        self._set(**{name: plain(value) for name, value in vars(self).items()})
        if wrong := self.wrong_type(vars(self)):
            raise TypeError(" ".join(wrong))
        self.validate()
        self._set(**{name: tuple(map(float, getattr(self, name))) for name in self.INPUT[1:]})
        if max(self.strides) == 1:
            self._set(stride_in="1x1")  # either place is the same
        if max(self.dilations) == 1:
            self._set(contract_dilation=False)

    def _set(self, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __iter__(self):
        # A network's own come first: so files have them, whose digests identify trainings. What
        # does not compare is a starting value.
        names = (f.name for f in fields(self) if f.compare and not (
            f.name in self.OTHERS and getattr(self, f.name) == f.default))
        return iter(sorted(names, key=_BACKBONE.__contains__))

    def __len__(self):
        return sum(1 for _ in self)

    def __getitem__(self, name):
        if name not in iter(self):
            raise KeyError(name)
        return getattr(self, name)

    @classmethod
    def arguments(cls) -> dict[str, object]:
        """{name: annotation} of every argument, short forms too, in their order."""
        return {name: p.annotation for name, p in inspect.signature(cls).parameters.items()}

    @classmethod
    def choices(cls, name: str) -> tuple:
        """The values that an argument may have; () where it is no choice."""
        return _annotated(cls.arguments()[name])[1]

    @classmethod
    def wrong_type(cls, arguments: Mapping[str, object]) -> tuple[str, str] | None:
        """The first argument that is not of its annotation's type, as (name, "must be ..., got
        ..."); None where all are. Names that are no argument pass."""
        annotations = cls.arguments()
        for name in filter(annotations.__contains__, arguments):
            kind, _, optional = _annotated(annotations[name])
            words, is_right = _TYPES[kind]
            if not is_right(value := arguments[name]) and not (optional and value is None):
                return name, f"must be {words}, got {' '.join(str(value).split())[:80]!r}"
        return None

    def validate(self) -> None:
        """Raise ValueError for an argument out of range."""
        for name, value in vars(self).items():
            if choices := self.choices(name):
                check_choice(name, value, choices)
        for name in _BACKBONE:
            value = getattr(self, name)
            if name in self.INPUT[1:]:
                _check(len(value) == 3 and max(map(abs, value)) <= MAX_INPUT,
                       f"{name} must be 3 numbers of at most {MAX_INPUT:g}, got {value}")
                _check(name == "input_mean" or min(value) >= 1 / MAX_INPUT,
                       f"{name} must be 3 numbers above 0, at least {1 / MAX_INPUT:g}, got {value}")
                continue
            _check(not isinstance(value, tuple) or len(value) == 4 and min(value) >= 1,
                   f"{name} must be 4 numbers of at least 1, got {value}")
        _check(max(self.blocks) <= MAX_BLOCKS,
               f"blocks must be at most {MAX_BLOCKS}, got {self.blocks}")
        for name, most in (("strides", MAX_STRIDE), ("dilations", MAX_DILATION)):
            _check(max(getattr(self, name)) <= most,
                   f"{name} must be at most {most}, got {getattr(self, name)}")
        _check(all(width <= full * MAX_WIDTH for width, full in zip(self.widths, WIDTHS)),
               f"widths must be at most {MAX_WIDTH} times {WIDTHS}, got {self.widths}")
        _check(1 <= self.stem_width <= 64 * MAX_WIDTH,
               f"stem_width must be 1 to {64 * MAX_WIDTH}, got {self.stem_width}")


_BACKBONE = [f.name for f in fields(BackboneSettings)]


@dataclass(frozen=True, eq=False)
class NetworkSettings(BackboneSettings):
    """The arguments of PSPNet, complete; as a mapping, those that make it again.

    They are the same for the same network, whatever the defaults and short forms (depth, width)
    that made it. Of starting values the mapping says nothing. Raises as BackboneSettings.
    """

    classes: int
    depth: InitVar[int] = 50  # 50, 101, 152 or 269; sets `blocks` where they are not given
    bins: Numbers = (1, 2, 3, 6)  # a side of each pyramid level; () is the baseline without one
    pool: Literal["ave", "max"] = "ave"
    reduce: bool = True  # 1x1 convolutions after pooling (DR in Table 1)
    aux: bool = True  # the auxiliary branch after stage 4; used in training mode only
    _: KW_ONLY
    dropout: float = 0.1  # ratio of element-wise dropout before both score convolutions
    spatial_dropout: bool = False  # of whole channels instead, as in many ports
    variance: Literal[VARIANCES] = "unbiased"  # this and the next: see SyncBatchNorm2d
    initial_running_var: float = field(default=1.0, compare=False)
    # Channels before the score convolutions; None: a quarter of the features that the convolution's
    # branch starts from.
    head_width: int | None = None
    aux_width: int | None = None
    backbone: Literal["resnet"] = "resnet"
    # "factorized" computes conv5_4 on the pyramid without upsampled maps (see factorized_head.py);
    # "literal" in the original's order of operations. The same function of the same parameters;
    # results differ by rounding.
    head: Literal["factorized", "literal"] = "factorized"
    # "original": convolutions, BN and loss sum in the order of the original's CPU program, bit for
    # bit (float32 on the CPU; elsewhere as "torch"), several times slower. Needs head "literal" and
    # variance "biased".
    arithmetic: Literal["torch", "original"] = "torch"
    blocks: Numbers | None = None  # for miniature networks; None: those of the depth
    # Factor of the stages' channels (1.0: 64/256 ... 512/2048); sets `widths` where they are not
    # given.
    width: InitVar[float] = 1.0
    widths: Numbers | None = None
    stride_in: Place | None = None  # None is as released: "1x1" at depth 50, else "3x3"
    # The pyramid's levels and the scores grow with corner pixels on corner pixels; False: with
    # half-pixel centres, as in some ports.
    align_corners: bool = True
    bn_momentum: float = 0.05  # weight of a batch's statistics; many ports have 0.1
    pool_padding: ClassVar = 1  # crops of stride * k + 1 pixels need it
    OTHERS: ClassVar = (*BackboneSettings.OTHERS, "align_corners", "bn_momentum")

    PYRAMID: ClassVar = ("bins", "pool", "reduce")
    # What decides, beside STRUCTURE and PYRAMID, what a whole network computes with its weights.
    WHOLE: ClassVar = ("backbone", "strides", "dilations", "head_width", "contract_dilation",
                       "align_corners")
    # What it does in training alone: a training takes it over, and may have another.
    TRAINED: ClassVar = ("dropout", "spatial_dropout", "variance", "bn_momentum")

    def __post_init__(self, depth, width):
        depth, width = plain(depth), plain(width)
        check_choice("depth", depth, tuple(BLOCKS))
        if self.blocks is None:
            self._set(blocks=BLOCKS[depth])
        if self.widths is None:
            _check(type(width) in (int, float) and 0 < width <= MAX_WIDTH
                   and round(WIDTHS[0] * width) >= 1,
                   f"width must be at most {MAX_WIDTH} and leave a channel of {WIDTHS[0]}, got "
                   f"{width}")
            self._set(widths=tuple(round(full * width) for full in WIDTHS))
        if self.stride_in is None:
            self._set(stride_in="1x1" if depth == 50 else "3x3")
        super().__post_init__()
        if not self.bins:  # then the pyramid's kind means nothing
            self._set(pool="ave", reduce=True,
                      head="literal" if self.arithmetic == "original" else "factorized")

    def validate(self) -> None:
        """Raise ValueError for an argument out of range; put numbers for widths that are None."""
        _check(self.backbone in self.choices("backbone"),
               f'backbone must be "resnet", got {self.backbone!r}: make another network of its '
               "prototxt and caffemodel, by prototxt_import.convert")
        super().validate()
        middle, features = self.channels
        _check(self.classes >= 1, f"classes must be at least 1, got {self.classes}")
        _check(all(b >= 1 for b in self.bins), f"bins must be at least 1, got {self.bins}")
        _check(max(self.bins, default=1) <= MAX_BINS,
               f"bins must be at most {MAX_BINS}, got {self.bins}")
        _check(not self.reduce or len(self.bins) <= features, "bins must name at most as many "
               f"levels as the {features} channels, got {len(self.bins)}")
        for name in ("dropout", "bn_momentum"):
            value = getattr(self, name)
            _check(0 <= value <= 1, f"{name} must be 0 to 1, got {value}")
        _check(self.arithmetic == "torch" or (self.head, self.variance) == ("literal", "biased"),
               'arithmetic "original" needs head "literal" and variance "biased", got '
               f"{self.head!r} and {self.variance!r}")
        head_width = features // REDUCTION if self.head_width is None else self.head_width
        aux_width = middle // REDUCTION if self.aux_width is None else self.aux_width
        _check(min(head_width, aux_width if self.aux else 1) >= 1,
               f"head_width and aux_width must be at least 1, got {head_width} and {aux_width}")
        self._set(head_width=head_width, aux_width=aux_width if self.aux else None)

    @property
    def channels(self) -> tuple[int, int]:
        """Of the maps that the auxiliary branch and the pyramid read."""
        return EXPANSION * self.widths[2], EXPANSION * self.widths[3]

    @property
    def backbone_arguments(self) -> dict:
        """The arguments of its backbone's module."""
        return {name: value for name, value in self.items()
                if name in _BACKBONE and name not in self.INPUT}

    @property
    def unit_arguments(self) -> dict:
        """Arguments of each ConvBN."""
        return {"variance": self.variance, "momentum": self.bn_momentum,
                "initial_running_var": self.initial_running_var, "arithmetic": self.arithmetic}
