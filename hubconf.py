"""Entry points of torch.hub: torch.hub.load("FOLDER OF THIS FILE", "predictor", "WEIGHTS",
source="local"). `make build` in that folder must have compiled the operators.
"""

from pathlib import Path
from typing import Any

from pspnet_repro import Predictor, PSPNet, load_model
from pspnet_repro.errors import UsageError

dependencies = ["torch", "numpy", "cv2", "PIL", "safetensors", "tqdm"]
predictor = Predictor  # its weights are files or lists of them; none are downloaded


def pspnet(weights: str | Path | None = None, **arguments: Any) -> PSPNet:
    """A PSPNet: the network of a file of weights, in eval mode, or a new one with random weights.

    Args:
        weights: see pspnet_repro.load_model; none are downloaded.
        arguments: of a new PSPNet, `classes` at least.
    Raises:
        UserError: the file cannot be used.
        UsageError: weights and arguments together: the file knows its network.
    """
    if weights is None:
        return PSPNet(**arguments)
    if arguments:
        raise UsageError(f"{', '.join(arguments)}: must be left out where weights are given, whose "
                         "file says what its network is")
    return load_model(weights)
