"""Files of weights with the settings of their network."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from pspnet_repro.defaults import MAX_SIDE
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.model.settings import BackboneSettings, NetworkSettings
from pspnet_repro.weights import recognize
from pspnet_repro.weights.plain_file import load_content, writer
from pspnet_repro.weights.sizes import check_tensors

_SAFETENSORS = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
                torch.float64: "F64"}


def save_model(path: Path | str, model: PSPNet | ResNet, **about: object) -> None:
    """Save a PSPNet's or a ResNet's weights with its settings and further plain facts.

    A path that ends in .safetensors gives that format, with the facts as JSON in its metadata; any
    other the one of `save`.
    """
    write_bytes(path, model_writer(path, model, **about))


def model_writer(path: Path | str, model: PSPNet | ResNet,
                 **about: object) -> Callable[[BinaryIO], None]:
    """A function that writes what `save_model` writes to a binary file."""
    facts = {"kind": kind_of(model), "settings": dict(model.settings), **about}
    if Path(path).suffix != ".safetensors":
        return writer({**facts, "weights": model.state_dict()})

    def write(file):
        # Not the library's writer, which needs a copy of all, and whose metadata are in a random
        # order: digests of files identify trainings.
        tensors = sorted(model.state_dict().items())
        header, end = {"__metadata__": {name: json.dumps(facts[name]) for name in sorted(facts)}}, 0
        for name, tensor in tensors:
            begin, end = end, end + tensor.nbytes
            header[name] = {"dtype": _SAFETENSORS[tensor.dtype], "shape": list(tensor.shape),
                            "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in tensors:
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)

    return write


def kind_of(model: PSPNet | ResNet) -> str:
    """The kind of a PSPNet's or a ResNet's file: "pspnet" or "backbone"."""
    return "backbone" if isinstance(model, ResNet) else "pspnet"


def read_model_file(path: Path | str) -> dict[str, object]:
    """The content of a file of `save_model` in either format, whatever its name: "kind" ("pspnet"
    or "backbone"), "settings", "weights" (name -> tensor) and the facts that were saved with them.

    Raises UserError for other files.
    """
    return checked_content(load_content(path), path)


def checked_content(content: dict, path: Path | str) -> dict[str, object]:
    """What `read_model_file` returns, of what `load_content` gave; raises alike."""
    missing = [key for key in ("settings", "weights") if key not in content]
    if len(missing) == 2:
        raise UserError(recognize.refusal(path, content))
    if missing:
        raise UserError(f"{path}: not a PSPNet file: lacks {missing[0]}")
    content = {"kind": "pspnet", **content}
    if not isinstance(content["kind"], str):
        raise UserError(f"{path}: kind: must be text, got a {type(content['kind']).__name__}")
    check_weights(content["weights"], path)
    _check_settings(content["settings"], content["kind"], path)
    return content


def check_weights(weights: object, path: Path | str) -> None:
    """Raise UserError unless what a file holds as weights are dense floating tensors by name,
    together no larger than the file."""
    if not isinstance(weights, dict):
        raise UserError(f"{path}: not a PSPNet file: settings must be a dictionary, weights one of "
                        "tensors")
    for name, tensor in weights.items():
        if not isinstance(name, str):
            raise UserError(f"{path}: weights: names must be text, got {str(name)[:40]!r}")
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"{path}: {name}: must be a tensor, got a {type(tensor).__name__}")
        if (tensor.dtype not in _SAFETENSORS or tensor.layout != torch.strided or tensor.is_nested
                or tensor.device.type != "cpu"):
            nested = "nested " if tensor.is_nested else ""
            raise UserError(f"{path}: {name}: must be a dense floating tensor, got a {nested}"
                            f"{tensor.layout} one of {tensor.dtype} on {tensor.device}")
    check_tensors(path, weights)


def _check_settings(settings, kind, path):
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not a PSPNet file: settings must be a dictionary, weights one of "
                        "tensors")
    # Names that are missing here the network's class refuses.
    wrong = (BackboneSettings if kind == "backbone" else NetworkSettings).wrong_type(settings)
    if wrong:
        raise UserError(f"{path}: settings, {': '.join(wrong)}")
    for name in settings:
        if not isinstance(name, str):
            raise UserError(f"{path}: settings: names must be text, got {str(name)[:40]!r}")


def load_model(path: Path | str) -> PSPNet:
    """A PSPNet from a file of `save_model` or a training checkpoint.

    Raises:
        UserError: no such file, no settings in it, or weights that do not fit them.
    """
    return model_of(read_model_file(path), path)


def load_backbone(path: Path | str) -> ResNet:
    """A ResNet from a file of `save_model`; raises as `load_model`."""
    return model_of(read_model_file(path), path, ResNet)


def crop_size_of(content: Mapping[str, object]) -> int | None:
    """The crop that a network was trained at or converted from; None where its file's content (of
    read_model_file) does not name a possible one.
    """
    for facts in (content.get("training"), content):
        size = facts.get("crop_size") if isinstance(facts, dict) else None
        if type(size) is int and 1 <= size <= MAX_SIDE:
            return size
    return None


def model_of(content: Mapping[str, object], path: Path | str,
             module: type[PSPNet] | type[ResNet] = PSPNet) -> PSPNet | ResNet:
    """The PSPNet or ResNet of a file's content (of read_model_file), in eval mode.

    The weights leave the content. `path` is for messages; `module` may be a class in PSPNet's
    place. Raises as `load_model`.
    """
    if content["kind"] != ("backbone" if module is ResNet else "pspnet"):
        raise UserError(f"{path}: must hold a {module.__name__}, holds one of kind "
                        f"{content['kind']!r} (a backbone is for train --initial-weights)")
    model = without_memory(content, path, module)
    # Taken out one by one, so that no two networks are in memory longer than needed.
    # Not to_empty, for which torch loads its symbolic shapes: 0.7 s.
    model.load_state_dict({
        name: content["weights"].pop(name).to("cpu", own.dtype, copy=True,
                                              memory_format=torch.contiguous_format)
        for name, own in model.state_dict().items()}, assign=True)
    check_finite(model, path)
    return model.eval()


def without_memory(content: Mapping[str, object], path: Path | str,
                   module: type[PSPNet] | type[ResNet] = PSPNet) -> PSPNet | ResNet:
    """As `model_of` without weights, on device "meta": wrong settings must not exhaust the memory.

    `module` is the class of what is no backbone. Raises UserError for settings that make no
    network, or weights that do not fit them.
    """
    if content["kind"] not in ("pspnet", "backbone"):
        raise UserError(f"{path}: kind must be pspnet or backbone, got {content['kind'][:40]!r}")
    try:
        with torch.device("meta"):
            model = (ResNet if content["kind"] == "backbone" else module)(**content["settings"])
        differences = shape_differences(model.state_dict(), content["weights"])
        if differences:
            raise ValueError("; ".join(differences))
    except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: weights and settings do not fit: "
                        f"{' '.join(str(error).split())[:300]}") from error
    return model


def shape_differences(wanted: Mapping[str, torch.Tensor],
                      given: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps two dictionaries of tensors from having the same names and shapes, in words."""
    return ([f"lacks {name}" for name in wanted if name not in given]
            + [f"has no place for {name}" for name in given if name not in wanted]
            + [f"{name} must be {tuple(wanted[name].shape)}, got {tuple(given[name].shape)}"
               for name in wanted if name in given and wanted[name].shape != given[name].shape])


def check_finite(model: torch.nn.Module, where: Path | str) -> None:
    """Raise UserError where a parameter or buffer of a module holds NaN or infinity."""
    for name, tensor in model.state_dict().items():
        if not all(end.isfinite() for end in tensor.aminmax()):
            raise UserError(f"{where}: {name} is not finite as {tensor.dtype}: use other weights")
