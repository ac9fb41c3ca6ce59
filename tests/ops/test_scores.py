"""The `scores` operator against its specification."""

import re

import pytest
import torch
from helpers.ops_cases import PLACES, maps
from torch._subclasses.fake_tensor import FakeTensorMode

from pspnet_repro import ops
from pspnet_repro.ops import reference


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place[1] + place[2])))
@pytest.mark.parametrize("mirror", [False, True], ids=["once", "mirrored"])
def test_scores_matches_reference(place, mirror):
    classes, size, window, canvas, tops, lefts = place
    logits, mirrored = maps(len(tops), classes, *size)
    mirrored = mirrored if mirror else None
    start = torch.rand(classes, *canvas)
    actual, wanted = start.clone(), start.clone()
    ops.scores(actual, logits, mirrored, tops, lefts, window)
    reference.scores(wanted, logits.double(), mirrored.double() if mirror else None, tops, lefts,
                     window)
    # Logits reach 20, so float32 places them to 2e-6; positions on these maps add 4e-7 of the
    # steps between neighbours, up to 30.
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("crop", [41, 89, 473])
def test_scores_at_the_originals_sizes_differs_by_rounding_only(crop):
    h = (crop - 1) // 8 + 1
    logits, mirrored = maps(1, 7, h, h)
    actual, wanted = torch.zeros(7, crop, crop), torch.zeros(7, crop, crop)
    ops.scores(actual, logits, mirrored, [0], [0], (crop, crop))
    reference.scores(wanted, logits.double(), mirrored.double(), [0], [0], (crop, crop))
    # Four roundings of logits up to 40.
    torch.testing.assert_close(actual, wanted, rtol=0, atol=4e-6)


def test_scores_exponential_is_accurate():
    """Of two classes the unlikely one has probability e^-t / (1 + e^-t)."""
    t = torch.linspace(0, 86, 100_003, dtype=torch.float64).float()
    logits = torch.stack([torch.zeros_like(t), -t]).view(1, 2, 1, -1)
    canvas = torch.zeros(2, 1, t.numel())
    ops.scores(canvas, logits, None, [0], [0], (1, t.numel()))
    wanted = torch.softmax(logits.double(), 1)[0]
    # The exponential itself to 2e-7; sum, division and product round once each.
    assert ((canvas - wanted) / wanted).abs().max() < 5e-7


def test_scores_of_hopeless_classes_are_zero():
    logits = torch.tensor([1000.0, 900.0, -1000.0, -1e30]).view(1, 4, 1, 1)
    canvas = torch.zeros(4, 3, 3)
    ops.scores(canvas, logits, None, [0], [0], (3, 3))
    assert torch.equal(canvas[:, 1, 1], torch.tensor([1.0, 0, 0, 0]))


def test_scores_propagates_nan():
    logits = torch.zeros(1, 3, 5, 5)
    logits[0, 1, 2, 2] = torch.nan
    canvas = torch.zeros(3, 33, 33)
    ops.scores(canvas, logits, None, [0], [0], (33, 33))
    assert canvas[:, 16, 16].isnan().all() and not canvas[:, 0, 0].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_scores_dtypes(dtype):
    logits, mirrored = maps(2, 6, 5, 7, dtype)
    arguments = ([0, 3], [2, -1], (33, 49))
    actual, wanted = torch.zeros(6, 36, 52), torch.zeros(6, 36, 52)
    ops.scores(actual, logits, mirrored, *arguments)
    ops.scores(wanted, logits.float(), mirrored.float(), *arguments)
    assert torch.equal(actual, wanted)


def test_scores_any_strides():
    logits, mirrored = maps(2, 20, 5, 7)
    arguments = ([0, 3], [2, -1], (33, 49))
    wanted = torch.zeros(20, 36, 52)
    ops.scores(wanted, logits, mirrored, *arguments)
    for view in (lambda t: t.contiguous(memory_format=torch.channels_last),
                 lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
                 lambda t: torch.cat([t, t], 1)[:, :20]):
        actual = torch.zeros(20, 36, 52)
        ops.scores(actual, view(logits), view(mirrored), *arguments)
        assert torch.equal(actual, wanted)


def test_scores_repeats_bitwise():
    logits, mirrored = maps(3, 19, 12, 12)
    canvases = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        canvas = torch.zeros(19, 120, 150)
        ops.scores(canvas, logits, mirrored, [0, 31, 20], [0, 61, 30], (89, 89))
        canvases.append(canvas)
    assert all(torch.equal(canvas, canvases[0]) for canvas in canvases)


@pytest.mark.parametrize("mirror", [False, True], ids=["once", "mirrored"])
def test_scores_opcheck(mirror):
    logits, mirrored = maps(2, 4, 3, 5)
    torch.library.opcheck(
        torch.ops.pspnet.scores.default,
        (torch.zeros(4, 20, 40), logits, mirrored if mirror else None, [0, 3], [0, 7], [17, 33]))


@pytest.mark.slow
def test_scores_compiles():
    def run(logits, mirrored):
        canvas = logits.new_zeros(4, 20, 40)
        ops.scores(canvas, logits, mirrored, [0, 3], [0, 7], (17, 33))
        return canvas / 2

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for w in (5, 9):
        logits, mirrored = maps(2, 4, 3, w)
        assert torch.equal(compiled(logits, mirrored), run(logits, mirrored))


REFUSED = [
    ({"logits": (4, 3, 5)}, "logits must be 4-D (N, C, H, W), got 3-D"),
    ({"canvas": (5, 20, 40)}, "canvas must be (classes, H, W) with the logits' 4 classes, got "
                              "shape [5, 20, 40]"),
    ({"canvas": (4, 20)}, "got shape [4, 20]"),
    ({"mirrored": (2, 4, 3, 4)}, "mirrored must have shape [2, 4, 3, 5], got [2, 4, 3, 4]"),
    ({"tops": [0]}, "tops and lefts must have a number for each of the 2 windows, got 1 and 2"),
    ({"lefts": [0, 2 ** 40]}, "tops and lefts must be within +-16777216 pixels, got 1099511627776"),
    ({"out_size": [17]}, "out_size must be 2 numbers (rows, columns), got 1"),
    ({"out_size": [0, 33]}, "out_size must be at least 1, got 0, 33"),
]


def _arguments(changes):
    arguments = {"canvas": (4, 20, 40), "logits": (2, 4, 3, 5), "mirrored": (2, 4, 3, 5),
                 "tops": [0, 3], "lefts": [0, 7], "out_size": [17, 33]} | changes
    return {name: torch.zeros(value) if isinstance(value, tuple) else value
            for name, value in arguments.items()}


@pytest.mark.parametrize("changes, words", REFUSED, ids=[words[:40] for _, words in REFUSED])
@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_scores_rejects(changes, words, fake):
    with pytest.raises(RuntimeError, match=re.escape(words)):
        if fake:
            with FakeTensorMode():
                ops.scores(**_arguments(changes))
        else:
            ops.scores(**_arguments(changes))


@pytest.mark.parametrize("canvas", [torch.zeros(4, 20, 40, dtype=torch.float64),
                                    torch.zeros(4, 40, 20).transpose(1, 2)],
                         ids=["float64", "strided"])
def test_scores_rejects_other_canvases(canvas):
    with pytest.raises(RuntimeError, match="canvas must be float32 and contiguous, got"):
        ops.scores(**_arguments({}) | {"canvas": canvas})
