"""Batch normalization as the original computes it, on our local operators."""

import torch
from torch import nn

from pspnet_repro import ops

VARIANCES = ("biased", "unbiased", "torch")


def torch_momentum(caffe_momentum):
    """torch's weight of the new value from Caffe's weight of the old: 0.95 -> 0.05."""
    return 1.0 - caffe_momentum


class _BatchNormTrain(torch.autograd.Function):
    """Normalization by the batch's own statistics; also returns the batch's mean and sqdev.

    The backward pass ignores the correction's own derivative for variance "unbiased", as the
    original does; for the other kinds it is the derivative.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, eps, corrected):
        mean, sqdev = ops.batch_norm_statistics(input)
        count = input.numel() // input.shape[1]
        invstd = (sqdev / _divisor(count, corrected) + eps).rsqrt()
        ctx.save_for_backward(input, mean, invstd, weight, bias)
        ctx.count = count
        ctx.mark_non_differentiable(mean, sqdev)
        return ops.batch_norm_normalize(input, mean, invstd, weight, bias), mean, sqdev

    @staticmethod
    def backward(ctx, grad_output, _mean, _sqdev):
        input, *norm = ctx.saved_tensors
        sum_dy, sum_dy_xhat = ops.batch_norm_backward_reduce(grad_output, input, *norm)
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input = ops.batch_norm_backward_elementwise(
                grad_output, input, *norm, sum_dy / ctx.count, sum_dy_xhat / ctx.count)
        return grad_input, sum_dy_xhat, sum_dy, None, None


class _BatchNormFrozen(torch.autograd.Function):
    """Normalization by given statistics; as in the original, only the input gets a gradient."""

    @staticmethod
    def forward(ctx, input, weight, bias, mean, var, eps):
        invstd = (var + eps).rsqrt()
        ctx.save_for_backward(input, mean, invstd, weight, bias)
        return ops.batch_norm_normalize(input, mean, invstd, weight, bias)

    @staticmethod
    def backward(ctx, grad_output):
        input, *norm = ctx.saved_tensors
        zero = torch.zeros_like(norm[0])
        grad_input = ops.batch_norm_backward_elementwise(grad_output, input, *norm, zero, zero)
        return grad_input, None, None, None, None, None


def _divisor(count, corrected):
    return count - 1 if corrected and count > 1 else count


class SyncBatchNorm2d(nn.Module):
    """Batch normalization with the original's choice of variance.

    y = weight * (x - mean) / sqrt(var + eps) + bias, channel by channel. In training mean and var
    are the batch's, and running = (1 - momentum) * running + momentum * batch; otherwise they are
    the running values, and weight and bias get no gradient (the original's `frozen`).
    `variance` says how the batch's variance is counted:

    - "biased" (layer BN of the released program): sum / m, to normalize and to remember;
    - "unbiased" (layer SyncBN of the training branch): sum / (m - 1) for both, and a backward pass
      that ignores the correction's derivative; m = 1 is not corrected;
    - "torch" (nn.BatchNorm2d, and BN with cuDNN): sum / m to normalize, sum / (m - 1) to remember.

    Args:
        channels: C.
        eps: added to the variance.
        momentum: weight of the new value (Caffe's 0.95 is 0.05 here, see `torch_momentum`).
        variance: "biased", "unbiased" or "torch".
        process_group: the processes that share statistics; only None, this process, so far.
        initial_running_var: start of the running variance. 1 by default, so that a network that
            was never trained gives finite numbers in eval mode; the original starts at 0, and so
            does our trainer.
    Shape:
        (N, C, H, W), any floating dtype -> the same.
    Raises:
        ValueError: another `variance` or a process group; in training, input without elements.

    Parameters and buffers are float32 (or float64 after .double()) whatever the input's dtype.
    Source: layers BN and SyncBN.
    """

    def __init__(self, channels, eps=1e-5, momentum=0.05, variance="unbiased",
                 process_group=None, initial_running_var=1.0):
        super().__init__()
        if variance not in VARIANCES:
            raise ValueError(f"variance must be one of {', '.join(VARIANCES)}, got {variance!r}")
        if process_group is not None:
            raise ValueError("process_group must be None: statistics of one process only")
        self.channels = channels
        self.eps = eps
        self.momentum = momentum
        self.variance = variance
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.full((channels,), float(initial_running_var)))

    def extra_repr(self):
        return (f"{self.channels}, eps={self.eps}, momentum={self.momentum}, "
                f"variance={self.variance!r}")

    def forward(self, input):
        if not self.training:
            return _BatchNormFrozen.apply(input, self.weight, self.bias, self.running_mean,
                                          self.running_var, self.eps)
        if input.numel() == 0:
            raise ValueError(f"input must have elements in training, got {tuple(input.shape)}")
        output, mean, sqdev = _BatchNormTrain.apply(input, self.weight, self.bias, self.eps,
                                                    self.variance == "unbiased")
        with torch.no_grad():
            count = input.numel() // input.shape[1]
            var = sqdev / _divisor(count, self.variance != "biased")
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        return output
