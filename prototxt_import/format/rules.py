"""Which layers are in a network: Caffe's include and exclude rules."""

from pathlib import Path

from prototxt_import.format.caffe_pb2 import LayerParameter, NetState
from pspnet_repro.errors import UserError


def _meets(rule, state):
    return not (rule.HasField("phase") and rule.phase != state.phase
                or rule.HasField("min_level") and state.level < rule.min_level
                or rule.HasField("max_level") and state.level > rule.max_level
                or any(stage not in state.stage for stage in rule.stage)
                or any(stage in state.stage for stage in rule.not_stage))


def included(layer: LayerParameter, state: NetState, path: Path | str) -> bool:
    """Whether a layer's rules keep it in a network of this state.

    With include rules a layer is in if it meets any of them, with exclude rules if it meets none.

    Raises:
        UserError: the layer has both kinds of rules.
    """
    if layer.include and layer.exclude:
        raise UserError(f"{path}: layer {layer.name!r}: must have include rules or exclude rules, "
                        "got both")
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)
