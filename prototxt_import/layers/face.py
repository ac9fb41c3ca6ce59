"""MarginInnerProduct of SphereFace's Caffe and CenterLoss of caffe-face, with the originals' own
gradients, which are not the derivatives everywhere."""

import math

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from prototxt_import.format.caffe_pb2 import LayerParameter, MarginInnerProductParameter
from prototxt_import.layers import linear
from prototxt_import.layers.base import (
    Built,
    Param,
    Shapes,
    axis_index,
    check,
    check_counts,
    check_finite_fields,
    filler_or,
)
from prototxt_import.layers.labels import read_labels
from pspnet_repro.exact.gradients import add_gradient

_Kind = MarginInnerProductParameter


def _margin(kind, cosine, norm):
    """psi of the angle, and the factors of weight and input in the derivative of norm * psi.

    psi is (-1)^k * cos(m * angle) - 2 * k for the k-th of the m parts of 0 to pi.
    """
    sign = cosine.sign()
    if kind == _Kind.DOUBLE:
        psi = 2 * sign * cosine ** 2 - 1
        of_weight, of_input = 4 * sign * cosine, 2 * sign * cosine ** 2 + 1
    elif kind == _Kind.TRIPLE:
        outer = (cosine.abs() - 0.5).sign()
        shift = sign * (1 + outer) - 2
        psi = outer * (4 * cosine ** 3 - 3 * cosine) + shift
        of_weight, of_input = outer * (12 * cosine ** 2 - 3), 8 * outer * cosine ** 3 - shift
    else:
        outer = sign * (2 * cosine ** 2 - 1).sign()
        shift = 2 * sign + outer - 3
        psi = outer * (8 * cosine ** 4 - 8 * cosine ** 2 + 1) + shift
        of_weight = outer * (32 * cosine ** 3 - 16 * cosine)
        of_input = outer * (24 * cosine ** 4 - 8 * cosine ** 2 - 1) - shift
    return psi, of_weight, -of_input / norm


class _MarginProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor,
                kind: int, mixed: float) -> torch.Tensor:
        products, own = x @ weight.t(), labels[:, None]
        norm = x.norm(dim=1, keepdim=True)
        psi, *factors = _margin(kind, products.gather(1, own) / norm, norm)
        ctx.save_for_backward(x, weight, own, *factors)
        ctx.mixed = mixed
        return (products.scatter(1, own, norm * psi) + mixed * products) / (1 + mixed)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        x, weight, own, of_weight, of_input = ctx.saved_tensors
        # The original scales the two factors so that the sum of their squares is 1.
        scale = grad.gather(1, own) / (of_weight ** 2 + of_input ** 2).sqrt()
        others = grad.scatter(1, own, scale * of_weight)
        grad_x = (others @ weight + scale * of_input * x + ctx.mixed * (grad @ weight)) / (
            1 + ctx.mixed)
        return grad_x, grad.t() @ x, None, None, None


def margin_inner_product(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Products with rows of length 1, of the label's row |x| * psi(angle), mixed as lambda says.

    The top is (lambda * product + |x| * psi) / (1 + lambda) at the label and the product elsewhere;
    lambda is base * (1 + gamma * pass)^-power, at least lambda_min, and the second top. Passes are
    counted from `iteration`, in a restored training too. Each pass makes the rows of the weight
    (out, in) of length 1. As in the original, the weight's gradient is that of a plain product, and
    at the label the input's is the derivative's mix of weight and input, their factors scaled.
    """
    check_counts(layer, 2, (1, 2))
    param = layer.margin_inner_product_param
    check(param.num_output >= 1, f"num_output must be at least 1, got {param.num_output}")
    check_finite_fields(param, ("base", "gamma", "power", "lambda_min"))
    check(param.lambda_min > -1 and param.gamma >= 0 and param.iteration >= 0,
          "lambda_min must be above -1, gamma and iteration at least 0, got "
          f"{param.lambda_min}, {param.gamma} and {param.iteration}")
    axis = axis_index(param.axis, shapes[0])
    outer, inputs = shapes[0][:axis], math.prod(shapes[0][axis:])
    items = math.prod(outer)
    check(math.prod(shapes[1]) == items, f"{items} inputs need as many labels, got {shapes[1]}")
    state = {"pass": param.iteration}

    def run(bottoms, params):
        state["pass"] += 1
        mixed = max(param.base * (1 + param.gamma * state["pass"]) ** -param.power,
                    param.lambda_min)
        linear.normalize_rows(params[0], 0)
        x = bottoms[0].reshape(items, inputs)
        labels, _ = read_labels(bottoms[1].flatten(), param.num_output, ())
        y = (x @ params[0].t() if param.type == _Kind.SINGLE else
             _MarginProduct.apply(x, params[0], labels, param.type, mixed))
        return [y.reshape(*outer, param.num_output), y.new_full((1,), mixed)][:len(layer.top)]

    weight = Param((param.num_output, inputs), filler_or(param, "weight_filler", 0))
    return Built([(*outer, param.num_output), (1,)][:len(layer.top)], run, [weight],
                 items * inputs * param.num_output, state)


class _CenterLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, centers: torch.Tensor,
                labels: torch.Tensor) -> torch.Tensor:
        distance = x - centers[labels]
        ctx.save_for_backward(distance, labels)
        ctx.centers = centers
        return distance.square().sum() / (2 * len(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        distance, labels = ctx.saved_tensors
        counts = torch.bincount(labels, minlength=len(ctx.centers))[:, None]
        steps = torch.zeros_like(ctx.centers).index_add_(0, labels, -distance) / (1 + counts)

        def set_steps(total):
            # The original overwrites what an earlier pass of iter_size gave for these labels.
            return steps if total is None else torch.where(counts > 0, steps, total)

        return (distance * (grad / len(distance)),
                add_gradient(ctx.centers, set_steps) if ctx.needs_input_grad[1] else None, None)


def center_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Half the mean squared distance of inputs to their labels' centers; blob: centers (out, in).

    As in the original, a center's gradient is the sum of its inputs' differences over one more than
    their number, whatever the loss weight.
    """
    check_counts(layer, 2, 1)
    param, shape = layer.center_loss_param, shapes[0]
    check(param.num_output >= 1, f"num_output must be at least 1, got {param.num_output}")
    check(len(shape) > 1 and axis_index(param.axis, shape) == 1,
          f"axis must be 1, got {param.axis}")
    inputs = math.prod(shape[1:])
    check(math.prod(shapes[1]) == shape[0],
          f"{shape[0]} inputs need as many labels, got {shapes[1]}")

    def run(bottoms, params):
        labels, _ = read_labels(bottoms[1].flatten(), param.num_output, ())
        return [_CenterLoss.apply(bottoms[0].reshape(shape[0], inputs), params[0], labels)]

    return Built([()], run, [Param((param.num_output, inputs), filler_or(param, "center_filler",
                                                                         0))])
