"""The layers of a PSPNet with the original's arithmetic, see PSPNet's `arithmetic`."""

import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro.exact import linear, norm
from pspnet_repro.sync_bn import SyncBatchNorm2d


class OriginalConv2d(nn.Conv2d):
    """nn.Conv2d, computed as the original's Convolution."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        sizes = [(size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
                 for size, pad, dilation, kernel, stride in
                 zip(input.shape[2:], self.padding, self.dilation, self.kernel_size, self.stride)]
        return linear.convolution(input, self.weight, self.bias, self.stride, self.padding,
                                  self.dilation, self.groups, sizes)


class OriginalBatchNorm2d(SyncBatchNorm2d):
    """SyncBatchNorm2d with the biased variance of this process, computed as the original's BN."""

    def forward(self, input: torch.Tensor, relu: bool = False,
                residual: torch.Tensor | None = None) -> torch.Tensor:
        tensors = self.weight, self.bias, self.running_mean, self.running_var
        if not linear.is_exact(input, *tensors):
            return super().forward(input, relu, residual)
        y = norm.batch_norm(input, *tensors, self.eps, self.training, 1 - self.momentum)
        if residual is not None:
            return F.relu(y + residual)
        return F.relu(y) if relu else y
