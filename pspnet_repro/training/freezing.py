"""Fine-tuning: parts of a network that stay as their initial weights have them."""

from pspnet_repro.defaults import FREEZE_BN
from pspnet_repro.errors import UsageError
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.words import counted


def freeze(model: PSPNet, bn: str | None = None, backbone: bool = False) -> None:
    """Fix parts of a PSPNet in place; `train()` does not free them.

    Args:
        bn: "backbone", "all" or None: whose batch normalization is fixed, see
            SyncBatchNorm2d.freeze. Raises ValueError for others.
        backbone: the backbone's parameters do not learn and its batch normalization is fixed: the
            backward pass ends at its outputs.
    """
    if bn is not None and bn not in FREEZE_BN:
        raise ValueError(f"freeze_bn must be None, {' or '.join(FREEZE_BN)}, got {bn!r}")
    if backbone:
        model.backbone.requires_grad_(False)
    if bn or backbone:
        for module in (model if bn == "all" else model.backbone).modules():
            if isinstance(module, SyncBatchNorm2d):
                module.freeze()


def learning(groups: list[dict]) -> list[dict]:
    """Parameter groups (see solver.parameter_groups) without the parameters that are frozen."""
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]}
              for group in groups]
    return [group for group in groups if group["params"]]


def check_frozen(model: PSPNet) -> list[str]:
    """Refuse frozen batch normalization that has no statistics to normalize by.

    Args:
        model: after `freeze`, with its initial weights.
    Returns:
        Sentences that say what is frozen, none where nothing is.
    Raises:
        UsageError: the running values of a frozen layer are those that every layer starts with:
            mean 0, and one variance in all channels.
    """
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, SyncBatchNorm2d) and module.frozen}
    learns = any(p.requires_grad for p in model.backbone.parameters())
    for name, layer in layers.items():
        mean, var = layer.running_mean, layer.running_var
        if not mean.any() and (var == var[0]).all():
            option, way = (("--freeze-bn" if learns else "--freeze-backbone",
                            "--initial-weights must name a file with statistics of a training")
                           if name.startswith("backbone.") else
                           ("--freeze-bn all", "freeze the backbone's alone (--freeze-bn backbone),"
                            " or --initial-weights must name a file that has this part"))
            raise UsageError(f"{name}: frozen batch normalization ({option}) must have "
                             "statistics, got the initial running values, mean 0 and variance "
                             f"{var[0].item():g}: {way}")
    if not layers:
        return []
    learned, every = (sum(p.numel() for p in model.parameters() if p.requires_grad or whole)
                      for whole in (False, True))
    return [f"frozen: batch normalization of {counted(len(layers), 'layer')}; {learned} of {every} "
            "parameters learn"]
