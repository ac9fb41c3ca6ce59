"""A PSPNet as a file of torch.export."""

import io
import json

import torch

from pspnet_repro.errors import UserError
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.weights.score_check import Check, compare, drawn_input

FACTS = "pspnet.json"  # among the file's extra files


def torch_export_bytes(net: PSPNet, crop_size: int) -> tuple[memoryview, Check]:
    """The content of a file for torch.export.load, and how it was checked: read again, and compared
    with the plain copy that it was made of.

    It takes (N, 3, crop_size, crop_size) float32, see PSPNet.prepare, for any N, and gives scores
    (N, classes, crop_size, crop_size). Its extra file FACTS holds the settings and the Check.

    Args:
        net: in eval mode, on the CPU, with float32 parameters.
        crop_size: pixels a side.
    Raises:
        UserError: a size that the network does not allow, or other scores.
    """
    try:
        net.check_crop(crop_size)
    except ValueError as error:
        raise UserError(str(error)) from error
    plain, x = net.for_inference(plain=True), drawn_input(net, crop_size)
    with torch.no_grad():
        program = torch.export.export(plain, (x,), dynamic_shapes=({0: torch.export.Dim("N")},))
        again = torch.export.load(io.BytesIO(_saved(program, {})))
        check = compare(f"torch {torch.__version__}", again.module()(x), plain(x))
    return _saved(program, {"settings": dict(net.settings), "check": check._asdict()}), check


def _saved(program, facts):
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts)})
    return buffer.getbuffer()
