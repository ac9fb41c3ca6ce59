"""Devices that are not there."""

import re

import pytest
import torch

from pspnet_repro.distributed import find_device
from pspnet_repro.errors import UsageError


def test_another_device_is_refused():
    for wrong in ("tpu", "cuda:1", "", None):
        with pytest.raises(UsageError, match=f"device must be cpu or cuda, got {wrong!r}"):
            find_device(wrong)


@pytest.mark.parametrize("built, count, said", [
    (False, 0, r"device cuda: this torch \({}\) is built without CUDA: install a torch with CUDA"),
    (True, 0, "device cuda: torch finds no GPU; nvidia-smi says"),
    (True, 2, "needs a GPU for each process of a machine, got 2 for process 3: start at most 2")])
def test_a_missing_gpu_is_told_with_its_reason(monkeypatch, built, count, said):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UsageError, match=said.format(re.escape(torch.__version__))):
        find_device("cuda")
