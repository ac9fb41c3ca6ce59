"""CaffeNet: a torch module built from a prototxt."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from prototxt_import import ends
from prototxt_import.format import caffe_pb2
from prototxt_import.format.caffemodel import iterate_caffemodel
from prototxt_import.format.prototxt import read_net
from prototxt_import.inputs import is_input, is_known, layer_inputs, old_inputs, with_batch
from prototxt_import.layers.base import Built, check, check_shape
from prototxt_import.layers.fillers import fill
from prototxt_import.layers.norm import warn_of_frozen
from prototxt_import.layers.table import LAYERS, count_uses, loss_weights
from prototxt_import.parameters import check_fits, check_size, rename, same_shape, share
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.exact import linear
from pspnet_repro.words import counted

PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}
ARITHMETICS = ("original", "torch")


class Step(NamedTuple):
    """A layer in its place: what it is, what it was built to, and its parameters."""

    layer: caffe_pb2.LayerParameter
    built: Built
    params: list[torch.Tensor]
    # Uses of each top by layers, and by the loss.
    uses: list[int]


def load_net(prototxt: Path | str, caffemodel: Path | str | None = None, phase: str = "TEST",
             shapes: Mapping[str, Sequence[int]] | None = None,
             arithmetic: str = "original", stages: Sequence[str] = ()) -> "CaffeNet":
    """Build a network from a prototxt.

    Args:
        caffemodel: a binary caffemodel with its weights; None: the fillers'.
        phase: "TEST" or "TRAIN".
        shapes: {input: shape} instead of those in the file; also of what unsupported layers make.
        arithmetic: "original": Caffe's own order of sums, where the CPU computes in float32;
            "torch": torch's functions, several times faster and equal within rounding.
        stages: of the network's state, for include and exclude rules that name stages.
    Raises:
        UserError: a file that cannot be read or means nothing; file and line or layer are named.
    """
    if phase not in PHASES:
        raise UserError(f'phase must be "TEST" or "TRAIN", got {phase!r}')
    if arithmetic not in ARITHMETICS:
        raise UserError(f"arithmetic must be one of {', '.join(ARITHMETICS)}, got {arithmetic!r}")
    left_out = {}
    state = caffe_pb2.NetState(phase=PHASES[phase], stage=stages)
    param = read_net(prototxt, state, LAYERS, left_out)
    return CaffeNet(param, prototxt, shapes, caffemodel, left_out, arithmetic)


class CaffeNet(nn.Module):
    """A network of Caffe's layers.

    `net(**inputs)` runs it and returns the blobs that no layer consumes, by name. Inputs are
    tensors or arrays of any size that the parameters fit. After a pass `blobs` holds every blob
    (a layer in place overwrites) and `loss` the sum of the weighted losses; autograd goes through
    all of it. `params[layer][i]` are the parameters in Caffe's order and shapes; statistics are
    among them and change with every pass in training, gradients never reach them. Where neither
    the file nor `shapes` tells the size of an input (data layers), the layers and their parameters
    are made by the first pass, or by `prepare`.

    Args:
        param: of layers that are all in the net's state.
        path: the file it came from, for messages.
        shapes: {input: shape} instead of those in `param`.
        caffemodel: file of weights.
        left_out: of layers in the file that are not in `param`: see read_net.
        arithmetic: see `load_net`.
    Raises:
        UserError: the layers do not make a network, or the weights do not fit; the layer is named.
    """

    def __init__(self, param: caffe_pb2.NetParameter, path: Path | str,
                 shapes: Mapping[str, Sequence[int]] | None = None,
                 caffemodel: Path | str | None = None, left_out: ends.LeftOut | None = None,
                 arithmetic: str = "original") -> None:
        super().__init__()
        self.path = path
        self.name = param.name
        self.training_phase = param.state.phase == caffe_pb2.TRAIN
        self.layers = ends.computed_layers(path, param, shapes or {})
        self.arithmetic = arithmetic
        self._left_out = left_out or {}
        # The fields `input`, which a caffemodel repeats.
        self.declared_inputs = list(param.input)
        ends.check_supported(path, self.layers)
        warn_of_frozen(path, self.layers)
        self.blobs, self.params = {}, {}
        # {layer: [ParamSpec]}, one for every blob; shared blobs have their owner's.
        self.specs = {}
        self.loss = None
        self._shared, self._caffemodel = {}, caffemodel
        self._guarded("input: ", self._find_inputs, param, shapes or {})
        self.steps = None
        if None not in self.input_shapes.values():
            self._start(self.input_shapes)

    def _start(self, input_shapes):
        """Build for the first time and give every parameter its value."""
        self._build(input_shapes)
        ends.warn_of_assumptions(self.path, [step[:2] for step in self.steps])
        done = set() if self._caffemodel is None else self.load_weights(self._caffemodel)
        for step in self.steps:
            for tensor, param in zip(step.params, step.built.params):
                # Without memory there is nothing to fill.
                if id(tensor) not in done and not tensor.is_meta:
                    self._guarded(_where(step.layer), fill, tensor, param.filler)
                    done.add(id(tensor))

    def _guarded(self, where, function, *args):
        """Call; what goes wrong becomes an error that names the file and `where`."""
        try:
            return function(*args)
        except (ValueError, RuntimeError, IndexError, OverflowError) as error:
            raise UserError(f"{self.path}: {where}{first_line(error)}") from error

    def _find_inputs(self, param, shapes):
        found = old_inputs(param)
        for layer in self.layers:
            if is_input(layer):
                more = self._guarded(_where(layer), layer_inputs, layer)
                check(not more.keys() & found, f"{sorted(more.keys() & found)} are there twice")
                found |= with_batch(layer, more, shapes)
        unknown = shapes.keys() - found
        check(not unknown, f"shapes name {sorted(unknown)}, inputs are {list(found)}")
        found |= {name: tuple(shape) for name, shape in shapes.items()}
        for shape in found.values():
            if is_known(shape):
                check_shape(shape)
        check(found, ends.missing_input(self.training_phase, self._left_out))
        # With None where the file leaves a size open.
        self.partial_shapes = found
        self.input_shapes = {name: shape if is_known(shape) else None
                             for name, shape in found.items()}

    def _build(self, input_shapes):
        """(Re)build every layer for these inputs; the first time, make the parameters."""
        shapes = dict(input_shapes)
        unused = dict.fromkeys(shapes)
        steps = []
        for layer in self.layers:
            if is_input(layer):
                continue
            built = self._guarded(_where(layer), self._build_layer, layer, shapes)
            steps.append((layer, built))
            for name in layer.bottom:
                unused.pop(name, None)
            unused |= dict.fromkeys(layer.top)
        if self.steps is not None:
            for step, (layer, built) in zip(self.steps, steps):
                self._guarded(_where(layer), check_fits, step.params, built)
                if built.state is not None:
                    built.state.update(step.built.state)
            params = [step.params for step in self.steps]
        else:
            total = 0
            for layer, built in steps:
                # Before any of them is made.
                total = self._guarded(_where(layer), check_size, built, total)
            params = [self._guarded(_where(layer), self._make, layer, built)
                      for layer, built in steps]
        uses = count_uses([layer for layer, _ in steps])
        self.steps = [Step(*step, *rest) for step, *rest in zip(steps, params, uses)]
        self.output_names = list(unused)
        self.shapes = shapes
        self._built_for = input_shapes

    def _build_layer(self, layer, shapes):
        ends.check_ends(layer, shapes, self.layers, self.training_phase, self._left_out)
        train = layer.phase == caffe_pb2.TRAIN if layer.HasField("phase") else self.training_phase
        built = LAYERS[layer.type](layer, [shapes[name] for name in layer.bottom], train)
        for name, shape in zip(layer.top, built.tops):
            check_shape(shape)
            shapes[name] = shape
        check(len(layer.param) <= len(built.params),
              f"has {counted(len(built.params), 'parameter')}, its param fields {len(layer.param)}")
        return built

    def _make(self, layer, built):
        """The parameters of a layer, without values; shared ones are their owner's."""
        if not built.params:
            return []
        if layer.name in self.params:
            rename(layer, self.layers, self.path)
        tensors, specs = [], []
        for k, param in enumerate(built.params):
            spec = layer.param[k] if k < len(layer.param) else caffe_pb2.ParamSpec()
            shared = self._shared.get(spec.name) if spec.name else None
            if shared is not None:
                tensor, spec = share(k, param, spec, *shared)
            else:
                tensor = nn.Parameter(torch.empty(param.shape),
                                      requires_grad=param.learned and spec.lr_mult != 0)
                # A dot is not allowed in a parameter's name; with % the names stay distinct.
                key = layer.name.replace("%", "%25").replace(".", "%2E")
                self.register_parameter(f"{key}/{k}", tensor)
                if spec.name:
                    self._shared[spec.name] = (tensor, spec)
            tensors.append(tensor)
            specs.append(spec)
        self.params[layer.name], self.specs[layer.name] = tensors, specs
        return tensors

    def load_weights(self, caffemodel: Path | str) -> set[int]:
        """Copy the blobs of a caffemodel into layers of the same names, on the CPU.

        Layers of the file that the network lacks are left alone, as in Caffe; layers of the
        network that the file lacks keep their values, which is warned of.

        Returns:
            The ids of the tensors that got values.
        Raises:
            UserError: blobs of another number or shape, or no layer in common; layers before the
                one at fault hold the file's values.
        """
        kinds = {step.layer.name: step.layer.type for step in self.steps}
        done = set()
        for name, (_, blobs) in iterate_caffemodel(caffemodel):
            if not blobs or name not in self.params:
                continue
            self._load_layer(f"{caffemodel}: layer {name!r}", kinds[name], self.params[name], blobs)
            done.update(map(id, self.params[name]))
        if self.params and not done:
            raise UserError(f"{caffemodel}: fits another network: 0 of "
                            f"{counted(len(self.params), 'layer')} of {self.path} match")
        missing = [name for name, tensors in self.params.items()
                   if any(id(tensor) not in done for tensor in tensors)]
        if missing:
            warnings.warn(f"{caffemodel}: lacks {counted(len(missing), 'layer')} of {self.path}, "
                          f"which keep their values: first {missing[0]!r}", stacklevel=2)
        return done

    def _load_layer(self, where, kind, tensors, blobs):
        if len(blobs) != len(tensors):
            raise UserError(f"{where} needs {counted(len(tensors), 'blob')}, has {len(blobs)}")
        for k, (tensor, blob) in enumerate(zip(tensors, blobs)):
            if not same_shape(tuple(tensor.shape), blob.shape, kind):
                raise UserError(f"{where}, blob {k}: needs shape {tuple(tensor.shape)}, has "
                                f"{blob.shape}")
            # Torch's own copies want a writable array, one more of the blob.
            tensor.detach().numpy()[...] = blob.reshape(tensor.shape)

    def forward(self, **inputs: torch.Tensor | np.ndarray) -> dict[str, torch.Tensor]:
        """Run the network; see the class."""
        self.blobs = self.prepare(**inputs)
        self.loss = None
        # {blob: its copies for the layers that read it}, where several do.
        copies = {}
        with linear.in_torch(self.arithmetic == "torch"):
            for step in self.steps:
                self._guarded(_where(step.layer), self._run, step, copies)
        return {name: self.blobs[name] for name in self.output_names if name in self.blobs}

    def prepare(self, **inputs: torch.Tensor | np.ndarray) -> dict[str, torch.Tensor]:
        """The inputs' tensors; the layers are built for them, if they are not already."""
        tensors = self._guarded("input: ", self._input_tensors, inputs)
        shapes = {name: tuple(tensors[name].shape) if name in tensors else shape
                  for name, shape in self.input_shapes.items()
                  if name in tensors or shape is not None}
        # Parameters that inference mode makes could never learn.
        with torch.inference_mode(False):
            if self.steps is None:
                self._start(shapes)
            elif shapes != self._built_for:
                self._build(shapes)
        return tensors

    def _input_tensors(self, inputs):
        wanted = {name for layer in self.layers for name in layer.bottom}
        for name in self.input_shapes:
            check(name in inputs or name not in wanted, f"{name!r} is missing")
        for name in inputs:
            check(name in self.input_shapes, f"{name!r} is none of {list(self.input_shapes)}")
        like = next(self.parameters(), torch.empty(0))
        tensors = {}
        for name, value in inputs.items():
            tensor = torch.as_tensor(value, device=like.device)
            keep = like.numel() == 0 and tensor.is_floating_point()
            tensors[name] = tensor if keep else tensor.to(like.dtype)
        return tensors

    def _run(self, step, copies):
        layer, built, params, uses = step
        bottoms = [copies[name].pop() if name in copies else self.blobs[name]
                   for name in layer.bottom]
        if layer.propagate_down:
            bottoms = [x if down else x.detach() for x, down in zip(bottoms, layer.propagate_down)]
        blobs = [p if p.shape == param.shape else p.view(param.shape)
                 for p, param in zip(params, built.params)]
        tops = built.run(bottoms, blobs)
        self.blobs |= zip(layer.top, tops)
        for name in layer.top:
            copies.pop(name, None)
        # The original adds the gradients of a blob in the order of the layers that read it.
        # The last copy is the first to be read.
        readable = [list(linear.split(top, count))[::-1] if count > 1 and top.requires_grad else
                    [top] * count for top, count in zip(tops, uses)]
        for weight, parts in zip(loss_weights(layer), readable):
            if weight:
                term = weight * parts.pop().sum()
                self.loss = term if self.loss is None else self.loss + term
        copies |= zip(layer.top, readable)


def _where(layer):
    return f"layer {layer.name!r} ({layer.type}): "
