"""Batch normalization as the original computes it: local operators and two collectives."""

import torch
from torch import nn

from pspnet_repro import distributed, ops
from pspnet_repro.defaults import VARIANCES


def torch_momentum(caffe_momentum: float) -> float:
    """torch's weight of the new value from Caffe's weight of the old: 0.95 -> 0.05."""
    return 1.0 - caffe_momentum


class _BatchNormTrain(torch.autograd.Function):
    """Normalization by the statistics of a batch that several processes may share.

    Returns the output, and the batch's mean and variance to remember. Over processes there is one
    collective in each direction, and gradients of weight and bias are this process's own. The
    backward pass ignores the correction's own derivative for variance "unbiased", as the original
    does; for the other kinds it is the derivative.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, eps, variance, relu, group, shared):
        mean, sqdev = _local_statistics(input)
        count = input.numel() // input.shape[1]
        if shared:
            count, mean, sqdev = _gathered_statistics(count, mean, sqdev, group)
        var = sqdev / _divisor(count, variance == "unbiased")
        invstd = (var + eps).rsqrt_()
        if variance == "torch":
            var = sqdev / _divisor(count, True)
        if shared:
            mean, var, invstd = (t.to(weight.dtype) for t in (mean, var, invstd))
        ctx.save_for_backward(input, mean, invstd, weight, bias)
        ctx.count, ctx.relu, ctx.group, ctx.shared = count, relu, group, shared
        ctx.mark_non_differentiable(mean, var)
        return ops.batch_norm_normalize(input, mean, invstd, weight, bias, relu), mean, var

    @staticmethod
    def backward(ctx, grad_output, _mean, _var):
        input, *norm = ctx.saved_tensors
        if input.numel():
            sum_dy, sum_dy_xhat = ops.batch_norm_backward_reduce(grad_output, input, *norm,
                                                                 ctx.relu)
        else:
            sum_dy, sum_dy_xhat = torch.zeros_like(norm[0]), torch.zeros_like(norm[0])
        grad_input = None
        if ctx.needs_input_grad[0]:
            sums = sum_dy, sum_dy_xhat
            if ctx.shared:
                sums = distributed.all_sum(torch.stack(sums), ctx.group)
            grad_input = ops.batch_norm_backward_elementwise(
                grad_output, input, *norm, sums[0] / ctx.count, sums[1] / ctx.count, ctx.relu)
        return grad_input, sum_dy_xhat, sum_dy, *[None] * 5


class _BatchNormFrozen(torch.autograd.Function):
    """Normalization by given statistics; as in the original, only the input gets a gradient."""

    @staticmethod
    def forward(ctx, input, weight, bias, mean, var, eps, relu):
        invstd = (var + eps).rsqrt()
        ctx.save_for_backward(input, mean, invstd, weight, bias)
        ctx.relu = relu
        return ops.batch_norm_normalize(input, mean, invstd, weight, bias, relu)

    @staticmethod
    def backward(ctx, grad_output):
        zero = torch.zeros_like(ctx.saved_tensors[1])
        grad_input = ops.batch_norm_backward_elementwise(grad_output, *ctx.saved_tensors, zero,
                                                         zero, ctx.relu)
        return grad_input, *[None] * 6


def _local_statistics(input):
    if input.numel():
        return ops.batch_norm_statistics(input)
    dtype = torch.promote_types(input.dtype, torch.float32)
    return input.new_zeros((2, input.shape[1]), dtype=dtype).unbind()


def _gathered_statistics(count, mean, sqdev, group):
    """Count, mean and sqdev over all processes, float64 tensors of the same bits in each."""
    # A count in float64 is exact and makes the whole tensor float64.
    packed = torch.cat([mean.new_full((1,), count, dtype=torch.float64), mean, sqdev])
    counts, means, sqdevs = distributed.all_gather(packed, group).split(
        [1, len(mean), len(mean)], 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    return count, mean, (sqdevs + counts * (means - mean) ** 2).sum(0)


def _divisor(count, corrected):
    """count, or count - 1 and at least 1; for numbers and tensors."""
    if not corrected:
        return count
    return (count - 1).clamp(min=1) if isinstance(count, torch.Tensor) else max(count - 1, 1)


class SyncBatchNorm2d(nn.Module):
    """Batch normalization with the original's choice of variance.

    y = weight * (x - mean) / sqrt(var + eps) + bias, channel by channel. In training mean and var
    are the batch's, and running = (1 - momentum) * running + momentum * batch; otherwise they are
    the running values, and weight and bias get no gradient (the original's `frozen`); `freeze`
    makes that so in training mode too.
    `variance` says how the batch's variance is counted:

    - "biased" (layer BN of the released program): sum / m, to normalize and to remember;
    - "unbiased" (layer SyncBN of the training branch): sum / (m - 1) for both, and a backward pass
      that ignores the correction's derivative; m = 1 is not corrected;
    - "torch" (nn.BatchNorm2d, and BN with cuDNN): sum / m to normalize, sum / (m - 1) to remember.

    In training the batch is that of all processes of the group together, whatever each one's part;
    a process may have none (N = 0). Each direction takes one collective, in which nothing waits
    for the host. Running values are the same bits in every process. Gradients of weight and bias
    are those of this process's part: averaged over the processes, as DistributedDataParallel and
    our trainer do with all gradients, they are the original's.

    Args:
        channels: C.
        eps: added to the variance.
        momentum: weight of the new value (Caffe's 0.95 is 0.05 here, see `torch_momentum`).
        variance: "biased", "unbiased" or "torch".
        process_group: the processes that share statistics; None is all of them, or this one while
            torch.distributed is not initialized (as in torch.nn.SyncBatchNorm); distributed.LOCAL
            is this one alone.
        initial_running_var: start of the running variance. 1 by default, so that a network that
            was never trained gives finite numbers in eval mode; the original starts at 0, and so
            does our trainer.
    Shape:
        (N, C, H, W), any floating dtype -> the same.
    Raises:
        ValueError: another `variance`; in training, input without elements in a single process,
            or a process outside of its group. (A batch without elements in any of several
            processes makes NaN.)
        distributed.ProcessLost: in training, another process ended or did not answer in time.

    Parameters and buffers are float32 (or float64 after .double()) whatever the input's dtype.
    Source: layers BN and SyncBN.
    """

    frozen = False  # see `freeze`

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.05,
                 variance: str = "unbiased",
                 process_group: "torch.distributed.ProcessGroup | str | None" = None,
                 initial_running_var: float = 1.0):
        super().__init__()
        if variance not in VARIANCES:
            raise ValueError(f"variance must be one of {', '.join(VARIANCES)}, got {variance!r}")
        self.channels = channels
        self.eps = eps
        self.momentum = momentum
        self.variance = variance
        self.process_group = process_group
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.full((channels,), float(initial_running_var)))

    def extra_repr(self) -> str:
        return (f"{self.channels}, eps={self.eps}, momentum={self.momentum}, "
                f"variance={self.variance!r}" + ", frozen" * self.frozen)

    def freeze(self) -> None:
        """Fix running values, weight and bias for good: `train()` does not free them.

        Source: `frozen: true` of layer BN.
        """
        self.frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "SyncBatchNorm2d":
        return super().train(mode and not self.frozen)

    def forward(self, input: torch.Tensor, relu: bool = False) -> torch.Tensor:
        """Normalize; with `relu` also the ReLU of it, in the same pass."""
        if not self.training:
            return _BatchNormFrozen.apply(input, self.weight, self.bias, self.running_mean,
                                          self.running_var, self.eps, relu)
        shared = distributed.group_size(self.process_group) > 1
        if input.numel() == 0 and not shared:
            raise ValueError(f"input must have elements in training, got {tuple(input.shape)}")
        output, mean, var = _BatchNormTrain.apply(input, self.weight, self.bias, self.eps,
                                                  self.variance, relu, self.process_group,
                                                  shared)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var, self.momentum)
        return output

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        # torch's batch normalization counts its passes; with a fixed momentum nothing reads it.
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @classmethod
    def convert_from(
            cls, module: nn.Module, variance: str = "torch",
            process_group: "torch.distributed.ProcessGroup | str | None" = None) -> nn.Module:
        """Replace every nn.BatchNorm2d and nn.SyncBatchNorm in a module by a SyncBatchNorm2d.

        Parameters and buffers are taken over, not copied; so is the process group of an
        nn.SyncBatchNorm, unless another is given. With variance "torch" the result computes what
        the module computed.

        Args:
            module: any module; changed in place, except where it is itself a layer to replace.
        Returns:
            The module, or the layer that replaces it.
        Raises:
            ValueError: a layer without parameters, running values or a fixed momentum.
        """
        def make(layer, name):
            if not (layer.affine and layer.track_running_stats and layer.momentum is not None):
                raise ValueError(f"{name or 'module'} must have affine, track_running_stats and a "
                                 f"fixed momentum to become a SyncBatchNorm2d, got {layer}")
            group = (getattr(layer, "process_group", None) if process_group is None
                     else process_group)
            return cls(layer.num_features, layer.eps, layer.momentum, variance, group)

        return _replaced(module, (nn.BatchNorm2d, nn.SyncBatchNorm), make)

    @classmethod
    def convert_to_torch(cls, module: nn.Module) -> nn.Module:
        """Replace every SyncBatchNorm2d in a module by an nn.SyncBatchNorm (local ones by an
        nn.BatchNorm2d).

        Parameters, buffers and process groups are taken over. In eval mode outputs stay what they
        were, though weight and bias get gradients; training counts the variance as "torch".

        Args:
            module: any module; changed in place, except where it is itself a layer to replace.
        Returns:
            The module, or the layer that replaces it.
        Raises:
            ValueError: a frozen layer: torch's would learn again after `train()`.
        """
        def make(layer, name):
            if layer.frozen:
                raise ValueError(f"{name or 'module'} must not be frozen to become a layer of "
                                 f"torch, which `train()` would free: convert before `freeze`")
            if layer.process_group is distributed.LOCAL:
                return nn.BatchNorm2d(layer.channels, layer.eps, layer.momentum)
            return nn.SyncBatchNorm(layer.channels, layer.eps, layer.momentum,
                                    process_group=layer.process_group)

        return _replaced(module, cls, make)


def _replaced(module, kinds, make):
    """`module` with every layer of `kinds` replaced by make(layer, name) holding its tensors."""
    made = {}
    for name, layer in module.named_modules():
        if isinstance(layer, kinds):
            new = made[layer] = make(layer, name).train(layer.training)
            for key in ("weight", "bias", "running_mean", "running_var"):
                setattr(new, key, getattr(layer, key))
            if "num_batches_tracked" in new._buffers:
                new.num_batches_tracked = new.num_batches_tracked.to(layer.weight.device)
    for owner in list(module.modules()):
        for name, child in owner._modules.items():
            if child in made:
                setattr(owner, name, made[child])
    return made.get(module, module)
