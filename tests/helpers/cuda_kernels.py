"""Calls the CUDA operators by name: on a card, or the same source on the CPU (cuda_on_cpu/)."""

import ctypes
import os

import pytest
import torch
from cuda_on_cpu.build import build

from helpers.paths import ROOT

REQUIRED = os.environ.get("PSPNET_REQUIRE_CUDA") == "1"
DEVICES = ["cpu"]
if REQUIRED or torch.cuda.is_available():
    DEVICES.append(pytest.param("card", marks=pytest.mark.cuda))
BUILD = ROOT / "build" / "cuda_on_cpu"
THREADS = 64  # of a planted kernel
ORDERS = ((0, 0), (1, 0), (2, 1), (2, 2))  # ascending, descending, two random ones


def _flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in _flat(part)]


def same(a, b):
    """Equal shapes, dtypes, strides and bits; NaNs are equal to each other."""
    return (a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
            and torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0))
            if a.is_floating_point() else torch.equal(a, b))


def _changed(operator, target, arguments):
    target = target.clone()
    operator(target, *arguments)
    return [target]


def _with_copies(operator, arguments, targets):
    targets = [target.clone() for target in targets]
    return [*_flat(operator(*arguments, *targets)), *targets]


def _stepped(operator, params, grads, buffers, numbers):
    params, buffers = ([tensor.clone() for tensor in tensors] for tensors in (params, buffers))
    operator(params, grads, buffers, *numbers)
    return [*params, *buffers]


class OnCpu:
    """The kernels on the CPU: every call runs in several orders of threads, with equal bits.

    With sanitizers one order is enough: all orders touch the same memory. What an operator
    allocates is NaN (or the largest number) until it is written.
    """

    def __init__(self):
        sanitize = os.environ.get("PSPNET_SANITIZE") == "1"
        self.orders = ORDERS[:1] if sanitize else ORDERS
        path = build(BUILD, sanitize)
        torch.ops.load_library(path)
        self.library = ctypes.CDLL(str(path))

    def planted(self, name, order=(0, 0)):
        """(error or "", output) of a planted kernel that reads 0, 1, 2, ..., 63."""
        function = self.library.cuda_on_cpu_planted
        function.restype = ctypes.c_char_p
        x, y = torch.arange(float(THREADS)), torch.full((THREADS,), float("nan"))
        self.library.cuda_on_cpu_set_order(order[0], ctypes.c_uint64(order[1]))
        error = function(name.encode(), ctypes.c_void_p(x.data_ptr()),
                         ctypes.c_void_p(y.data_ptr()))
        self.library.cuda_on_cpu_set_order(0, ctypes.c_uint64(0))
        return error.decode(), y

    def call(self, name, *arguments):
        """List of the tensors that operator `name` returns."""
        return self._in_orders(name, lambda operator: _flat(operator(*arguments)))

    def _in_orders(self, name, run):
        operator = getattr(torch.ops.pspnet_cuda_on_cpu, name)
        results = []
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)  # fills new memory
        try:
            for order, seed in self.orders:
                self.library.cuda_on_cpu_set_order(order, ctypes.c_uint64(seed))
                results.append(run(operator))
        finally:
            self.library.cuda_on_cpu_set_order(0, ctypes.c_uint64(0))
            torch.use_deterministic_algorithms(before)
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert same(a, b), f"{name} depends on the order of threads"
        return results[0]

    def add(self, name, target, *arguments):
        """What operator `name` makes of a copy of its first argument, which it changes."""
        return self._in_orders(name, lambda operator: _changed(operator, target, arguments))[0]

    def change(self, name, arguments, targets):
        """What operator `name` returns, and copies of its last arguments, which it changes."""
        return self._in_orders(name, lambda operator: _with_copies(operator, arguments, targets))

    def step(self, name, params, grads, buffers, numbers):
        """What a solver's operator makes of copies of weights and momentum."""
        results = self._in_orders(name, lambda operator: _stepped(operator, params, grads, buffers,
                                                                  numbers))
        return results[:len(params)], results[len(params):]


class OnCard:
    """The same on the first CUDA device, twice, with equal bits; tensors come from the CPU."""

    def call(self, name, *arguments):
        operator = getattr(torch.ops.pspnet, name)
        moved = [_moved(argument) for argument in arguments]
        return self._twice(name, lambda: _flat(operator(*moved)))

    def add(self, name, target, *arguments):
        operator = getattr(torch.ops.pspnet, name)
        moved = [_moved(argument) for argument in arguments]
        return self._twice(name, lambda: _changed(operator, target.cuda(), moved))[0]

    def change(self, name, arguments, targets):
        operator = getattr(torch.ops.pspnet, name)
        return self._twice(name, lambda: _with_copies(operator, _moved(arguments),
                                                      _moved(targets)))

    def step(self, name, params, grads, buffers, numbers):
        operator = getattr(torch.ops.pspnet, name)
        results = self._twice(name, lambda: _stepped(
            operator, *map(_moved, (params, grads, buffers)), numbers))
        return results[:len(params)], results[len(params):]

    def _twice(self, name, run):
        results = [[tensor.cpu() for tensor in run()] for _ in range(2)]
        for a, b in zip(*results, strict=True):
            assert same(a, b), f"{name} does not repeat"
        return results[0]


def _moved(value):
    if isinstance(value, torch.Tensor):
        return value.cuda()
    if isinstance(value, (list, tuple)):
        return [_moved(item) for item in value]
    return value


def kernels_of(device):
    """The kernels on one of DEVICES, for a fixture."""
    if device == "cpu":
        return OnCpu()
    assert torch.cuda.is_available(), "PSPNET_REQUIRE_CUDA=1, but torch finds no GPU"
    return OnCard()
