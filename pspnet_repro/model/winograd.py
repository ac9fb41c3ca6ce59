"""3x3 convolutions of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Along one axis, 4 outputs y_i = sum_j g_j d_(i+j) of a kernel g of 3 on 6 values d are the
transpose of a product of two polynomials of degrees 3 and 2. That product, of degree 5, is known
by its values at 5 points a_k and its leading coefficient (the value "at infinity"), hence by 6
multiplications; interpolation gives it back. Transposed:

    y = A^T ((G g) * (B^T d)),   A[k, i] = a_k^i,   G[k, j] = a_k^j / prod_(l != k) (a_k - a_l),

row k of B^T being the coefficients of prod_(l != k) (x - a_l); at infinity A and G take the last
coefficient alone and B^T that of prod_l (x - a_l). Along both axes 36 multiplications give 16
outputs that take 144 one by one. A sum over channels goes between the transforms, so that it is 36
products of matrices, (tiles, C) times (C, O). A kernel of dilation d is one without on each of the
d * d images of every d-th pixel.

The gradient of the input is a convolution with the kernel turned by 180 degrees and its axes
exchanged. That of the kernel is the transposed of the above: G^T ((A t A^T) * (B^T d B)) G, summed
over the tiles, with the outputs' gradients t of a tile.

The points 0, +-3/4, +-3/2 lose least: in float32 errors are some five times those of the sum one
by one, a third of those of 0, +-1, +-2 at the largest; B and A stay exact. A NaN or an infinity
spreads over its tile.

Source: Winograd, Arithmetic Complexity of Computations (1980); Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks (2016).
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from pspnet_repro import ops

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
OUTPUTS = 4  # of a tile, along one axis
INPUTS = 6
LANES = 16  # channels that the operators take together
LEAST_CHANNELS = 128
KERNELS = 2 ** 14  # that are transformed at once
# On fewer tiles the 36 matrices of weights, four times those of the kernel, take longest to read.
LEAST_TILES = 64
# In training each pass transforms the weights anew, so it takes more tiles: a 473 crop has 225.
LEAST_TRAINED_TILES = 200
# Between the transforms exist 36 values a channel of every tile of an image: a limit on memory.
MOST_TILES = 1024


@functools.cache
def matrices() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(A^T, G, B^T), float64: (4, 6), (6, 3), (6, 6)."""
    count = len(POINTS)
    a, g, b = np.zeros((OUTPUTS, INPUTS)), np.zeros((INPUTS, 3)), np.zeros((INPUTS, INPUTS))
    for k, point in enumerate(POINTS):
        others = POINTS[:k] + POINTS[k + 1:]
        a[:, k] = point ** np.arange(OUTPUTS)
        g[k] = point ** np.arange(3) / math.prod(point - other for other in others)
        b[k, :count] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(POINTS)[::-1]
    return tuple(torch.from_numpy(matrix) for matrix in (a, g, b))


def tiles_of(images: int, height: int, width: int, dilation: int) -> int:
    """How many tiles cover a batch of images; see ops.winograd_tiles."""
    per_axis = (math.ceil(math.ceil(size / dilation) / OUTPUTS) for size in (height, width))
    return images * dilation ** 2 * math.prod(per_axis)


def fits(weight: torch.Tensor, padding: Sequence[int], stride: Sequence[int],
         dilation: Sequence[int], groups: int) -> bool:
    """Whether a convolution has the form and the channels that WinogradConv is for."""
    return (tuple(weight.shape[2:]) == (3, 3) and list(stride) == [1, 1] and groups == 1
            and dilation[0] == dilation[1] and list(padding) == list(dilation)
            and weight.dtype == torch.float32 and weight.device.type == "cpu"
            and all(c >= LEAST_CHANNELS and c % LANES == 0 for c in weight.shape[:2]))


def pays(x: torch.Tensor, dilation: int, training: bool = False) -> bool:
    """Whether a map's size is right, by its shape alone: so results repeat bit for bit."""
    least = LEAST_TRAINED_TILES if training else LEAST_TILES
    return least <= tiles_of(1, *x.shape[2:], dilation) <= MOST_TILES


class WinogradConv:
    """A 3x3 convolution on the CPU in float32, its padding equal to its dilation.

    Args:
        weight: (O, C, 3, 3) for which `fits`, or that in oneDNN's layout.
        bias: (O,).
        dilation: pixels.
    """

    _GEOMETRY = [0, 0], [1, 1], [1, 1], INPUTS ** 2

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, dilation: int) -> None:
        self.kernel, self.bias, self.dilation = weight, bias, dilation
        a, _, b = matrices()
        self.before, self.after = b.float(), a.float()
        self._weight = functools.lru_cache(maxsize=1)(self._make_weight)

    def _make_weight(self, tiles, _threads):
        """(36 * O, C, 1, 1) in the layout that oneDNN wants for so many tiles and threads.

        In another it would be brought into that one at every call, which takes far longer.
        """
        kernel = self.kernel.to_dense() if self.kernel.is_mkldnn else self.kernel
        g = matrices()[1]
        transform = torch.kron(g, g).float()
        # G g G^T of every kernel, (36, O * C), by parts that stay in the cache.
        kernels = kernel.detach().flatten(2).flatten(0, 1)
        weight = kernels.new_empty(INPUTS ** 2, len(kernels))
        for part, those in zip(weight.split(KERNELS, 1), kernels.split(KERNELS)):
            torch.mm(transform, those.T, out=part)
        return torch.ops.mkldnn._reorder_convolution_weight(
            weight.view(-1, kernel.shape[1], 1, 1), *self._GEOMETRY,
            [1, INPUTS ** 2 * kernel.shape[1], 1, tiles])

    def __call__(self, x, relu):
        """conv(x), (N, O, H, W) channels last, with ReLU or without."""
        output = torch.empty(x.shape[0], self.bias.shape[0], *x.shape[2:],
                             memory_format=torch.channels_last)
        return self._write(output, x, False, relu)

    def add_to(self, other: torch.Tensor, x: torch.Tensor, relu: bool) -> torch.Tensor:
        """other + conv(x) in the place of `other`, channels last."""
        return self._write(other, x, True, relu)

    def _write(self, output, x, add, relu):
        count = tiles_of(1, *x.shape[2:], self.dilation)
        weight = self._weight(count, torch.get_num_threads())
        for first in range(0, x.shape[0] * count, count):  # image by image
            tiles = ops.winograd_tiles(x, self.before, self.dilation, first, count)
            ops.winograd_pixels(output, self._products(tiles, weight), self.after, self.bias,
                                self.dilation, first, add, relu)
        return output

    def _products(self, tiles, weight):
        """(count, 36, C) -> (count, 36, O), every position with its own matrix.

        As a convolution in 36 groups of a map of one row: oneDNN's is twice as fast as torch's bmm.
        """
        row = tiles.view(1, 1, len(tiles), -1).permute(0, 3, 1, 2)
        row = torch.ops.mkldnn._convolution_pointwise(row, weight, None, *self._GEOMETRY,
                                                      "none", [], "")
        return row.permute(0, 2, 3, 1).reshape(len(tiles), INPUTS ** 2, -1)


class _TrainedConv2d(torch.autograd.Function):
    """A convolution for which `trains`, with its gradients."""

    @staticmethod
    def forward(ctx, x, weight, dilation):
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _without_bias(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return (_without_bias(grad, weight.flip(2, 3).transpose(0, 1), ctx.dilation)
                if ctx.needs_input_grad[0] else None,
                _weight_gradient(x, grad, ctx.dilation) if ctx.needs_input_grad[1] else None, None)


def _without_bias(x, weight, dilation):
    return WinogradConv(weight, weight.new_zeros(len(weight)), dilation)(x, relu=False)


def _weight_gradient(x, grad, dilation):
    a, g, b = matrices()
    count = tiles_of(1, *x.shape[2:], dilation)
    total = x.new_zeros(INPUTS ** 2, grad.shape[1], x.shape[1])
    for first in range(0, len(x) * count, count):  # image by image
        inputs = ops.winograd_tiles(x, b.float(), dilation, first, count)
        grads = ops.winograd_tiles(grad, a.T.float(), dilation, first, count)
        total.baddbmm_(grads.permute(1, 2, 0), inputs.transpose(0, 1))
    weight = torch.kron(g, g).T.float() @ total.flatten(1)
    return weight.view(3, 3, *total.shape[1:]).permute(2, 3, 0, 1)


class _TrainedPointwise(torch.autograd.Function):
    """A 1x1 convolution of maps that are channels last. Its kernel learns by a product of matrices:
    without AVX-512 oneDNN takes a third longer for it, and with it half as long on an AMD processor
    (where torch's product of matrices uses AVX2)."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        pixels, grads = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, grad))
        return (F.conv2d(grad, weight.transpose(0, 1)) if ctx.needs_input_grad[0] else None,
                (pixels.T @ grads).T.view_as(weight) if ctx.needs_input_grad[1] else None)


def conv2d(x: torch.Tensor, weight: torch.Tensor, padding: Sequence[int] = (1, 1),
           stride: Sequence[int] = (1, 1), dilation: Sequence[int] = (1, 1),
           groups: int = 1) -> torch.Tensor:
    """F.conv2d without bias; where it learns, `fits` and `pays`, by Winograd's, channels last.

    1x1 convolutions of maps that are channels last, on the CPU those behind Winograd's, learn by
    products of matrices.
    """
    if (not torch.compiler.is_compiling() and not torch.jit.is_tracing()
            and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
            and type(x) is torch.Tensor  # no FakeTensor
            and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
            and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
            and not torch.is_autocast_enabled("cpu")):
        if fits(weight, padding, stride, dilation, groups) and pays(x, dilation[0], True):
            return _TrainedConv2d.apply(x, weight, dilation[0])
        if (torch.backends.cpu.get_cpu_capability() != "AVX512"
                and weight.shape[2:] == (1, 1) and groups == 1 and tuple(stride) == (1, 1)
                and tuple(padding) == (0, 0) and not x.is_contiguous()
                and x.is_contiguous(memory_format=torch.channels_last)):
            return _TrainedPointwise.apply(x, weight)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups)


class Conv2d(nn.Conv2d):
    """nn.Conv2d, trained by `conv2d`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is not None:
            return super().forward(x)
        return conv2d(x, self.weight, self.padding, self.stride, self.dilation, self.groups)
