"""The operators against torch's own and against the copy bandwidth."""

from collections.abc import Iterator

import torch

from ..cuda import DTYPES, Sizes, rows
from .part import Row, Setting

MINIATURE = Sizes(batch=1, channels=16, classes=3, stem=8, side=6, crop=41)


def work(setting: Setting) -> Iterator[Row]:
    if setting.small:
        yield from rows(torch.device("cpu"), MINIATURE, 1, {"float32": torch.float32})
    else:
        yield from rows(torch.device("cuda"), Sizes(), 5, DTYPES)
