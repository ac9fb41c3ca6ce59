"""Batch normalization as the original computes it: local operators and two collectives."""

from collections.abc import Sequence

import torch
from torch import nn

from pspnet_repro import distributed, ops
from pspnet_repro.defaults import VARIANCES


def torch_momentum(caffe_momentum: float) -> float:
    """torch's weight of the new value from Caffe's weight of the old: 0.95 -> 0.05."""
    return 1.0 - caffe_momentum


class _BatchNormTrain(torch.autograd.Function):
    """Normalization of the inputs of several layers by statistics that processes may share.

    After the options come input, residual or None, weight, bias, mean and invstd of one layer after
    the other. Over processes the backward pass has one collective for all of them. Gradients of
    weight and bias are this process's own. It ignores the correction's own derivative for variance
    "unbiased", as the original does; for the other kinds it is the derivative.

    Args:
        counts: elements a channel, over all processes, of each layer.
    """

    @staticmethod
    def forward(ctx, counts, relu, group, shared, *tensors):
        ctx.save_for_backward(*tensors)
        ctx.counts, ctx.relu, ctx.group, ctx.shared = counts, relu, group, shared
        return tuple(_normalized(*layer, relu) for layer in _by_layer(tensors))

    @staticmethod
    def backward(ctx, *grad_outputs):
        layers = _by_layer(ctx.saved_tensors)
        reduced = [_before(grad, *layer, ctx.relu) for grad, layer in zip(grad_outputs, layers)]
        sums = [part for *_, sum_dy, sum_dy_xhat in reduced for part in (sum_dy, sum_dy_xhat)]
        if ctx.shared and any(ctx.needs_input_grad[4::6]):
            sums = distributed.all_sum(torch.cat(sums), ctx.group).split([len(s) for s in sums])
        grads = []
        for k, ((input, residual, weight, bias, *norm), count) in enumerate(
                zip(layers, ctx.counts)):
            grad, relu, sum_dy, sum_dy_xhat = reduced[k]
            grad_input = ops.batch_norm_backward_elementwise(
                grad, input, *norm, weight, bias, sums[2 * k] / count, sums[2 * k + 1] / count,
                relu) if ctx.needs_input_grad[4 + 6 * k] else None
            grads += [grad_input, None if residual is None else grad, sum_dy_xhat, sum_dy, None,
                      None]
        return *[None] * 4, *grads


class _BatchNormFrozen(torch.autograd.Function):
    """Normalization by given statistics; as in the original, weight and bias get no gradient."""

    @staticmethod
    def forward(ctx, input, residual, weight, bias, mean, var, eps, relu):
        tensors = input, residual, weight, bias, mean, (var + eps).rsqrt()
        ctx.save_for_backward(*tensors)
        ctx.relu = relu
        return _normalized(*tensors, relu)

    @staticmethod
    def backward(ctx, grad_output):
        input, residual, weight, bias, *norm = ctx.saved_tensors
        grad, relu = grad_output, ctx.relu
        if residual is not None:
            grad, relu, *_ = _before(grad_output, *ctx.saved_tensors, relu)
        zero = torch.zeros_like(weight)
        grad_input = ops.batch_norm_backward_elementwise(grad, input, *norm, weight, bias, zero,
                                                         zero, relu)
        return grad_input, None if residual is None else grad, *[None] * 6


def _by_layer(tensors):
    return [tensors[first:first + 6] for first in range(0, len(tensors), 6)]


def _normalized(input, residual, weight, bias, mean, invstd, relu):
    return ops.batch_norm_normalize(input, mean, invstd, weight, bias, relu, residual)


def _before(grad, input, residual, weight, bias, mean, invstd, relu):
    """(gradient, whether a ReLU is still behind it, its sum, its sum times xhat) of an output."""
    norm = mean, invstd, weight, bias
    if not input.numel():
        return grad, relu, torch.zeros_like(mean), torch.zeros_like(mean)
    if residual is None:
        return grad, relu, *ops.batch_norm_backward_reduce(grad, input, *norm, relu)
    grad, *sums = ops.batch_norm_backward_residual(grad, input, residual, *norm)
    return grad, False, *sums


def _local_statistics(input):
    if input.numel():
        return ops.batch_norm_statistics(input)
    dtype = torch.promote_types(input.dtype, torch.float32)
    return input.new_zeros((2, input.shape[1]), dtype=dtype).unbind()


def batch_norm_together(layers: "Sequence[SyncBatchNorm2d]", inputs: Sequence[torch.Tensor],
                        relu: bool = False,
                        residuals: Sequence[torch.Tensor | None] | None = None,
                        shared: bool | None = None) -> tuple[torch.Tensor, ...]:
    """What layers in training make of an input each; each direction has one collective for all.

    Args:
        layers: of one process group.
        relu, residuals: see SyncBatchNorm2d.forward.
        shared: whether there are collectives; None: where the group has several processes.
    """
    group = layers[0].process_group
    if shared is None:
        shared = distributed.group_size(group) > 1
    for input in inputs:
        if input.numel() == 0 and not shared:
            raise ValueError(f"input must have elements in training, got {tuple(input.shape)}")
    counts, arguments = [], []
    with torch.no_grad():
        own = [(input.numel() // input.shape[1], *_local_statistics(input)) for input in inputs]
        found = [(None, mean[None], sqdev[None]) for _, mean, sqdev in own]
        if shared:
            # A count in float64 is exact and makes the whole tensor float64.
            parts = [part for count, mean, sqdev in own for part in (
                mean.new_full((1,), count, dtype=torch.float64), mean, sqdev)]
            columns = distributed.all_gather(torch.cat(parts), group).split(
                [len(part) for part in parts], 1)
            found = [(columns[k][:, 0], *columns[k + 1:k + 3]) for k in range(0, len(columns), 3)]
        for layer, input, residual, (count, *_), (elements, means, sqdevs) in zip(
                layers, inputs, residuals or [None] * len(layers), own, found):
            unbiased = layer.variance == "unbiased"
            mean, invstd, total = ops.batch_norm_combine(
                means, sqdevs, elements, count, layer.eps, unbiased, layer.variance != "biased",
                layer.momentum, layer.running_mean, layer.running_var)
            counts.append(total if shared else count)
            arguments += [input, residual, layer.weight, layer.bias, mean, invstd]
    return _BatchNormTrain.apply(counts, relu, group, shared, *arguments)


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

    def forward(self, input: torch.Tensor, relu: bool = False,
                residual: torch.Tensor | None = None) -> torch.Tensor:
        """Normalize; with `relu` also the ReLU of it, in the same pass; with `residual`, a tensor
        like the input, the ReLU of their sum."""
        relu = relu or residual is not None
        if not self.training:
            return _BatchNormFrozen.apply(input, residual, self.weight, self.bias,
                                          self.running_mean, self.running_var, self.eps, relu)
        return batch_norm_together([self], [input], relu, [residual])[0]

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
