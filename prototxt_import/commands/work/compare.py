"""Finding the first blob in which a network leaves the original's recorded values."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch


def recorded_items(arrays: Iterable[str]) -> dict[int, str]:
    """{index of an item in the batch: prefix of its arrays}: {0: ""} for a single image."""
    items = {int(found[1]): found[0] for found in (re.match(r"(\d{1,9})/", name) for name in arrays)
             if found}
    return items or {0: ""}


def deviations(blobs: Mapping[str, torch.Tensor], arrays: Mapping[str, np.ndarray], item: int = 0,
               prefix: str = "") -> dict[str, float]:
    """Compare blobs with samples of the original's, in the network's order.

    Args:
        blobs: {name: tensor} of a pass.
        arrays: "<prefix>sample/<blob>", values evenly spaced over the flattened blob of one item,
            and "<prefix>mean_abs/<blob>", the mean of its absolute values.
        item: index of the item in the batch.
    Returns:
        {blob: its largest error over its largest value}, of each recorded blob that the network
        has. Copies that the original makes of a blob with several readers are other names of the
        same values.
    """
    errors = {}
    for name, blob in blobs.items():
        sample = arrays.get(f"{prefix}sample/{name}")
        if sample is None:
            continue
        # Differences and absolute values of integers would wrap around.
        sample = sample.astype(np.result_type(sample, np.float32))
        ours = (blob[item] if blob.ndim else blob).detach().cpu().numpy().reshape(-1)
        at = np.linspace(0, ours.size - 1, sample.size).astype(np.int64)
        mean = float(arrays[f"{prefix}mean_abs/{name}"])
        largest = max(np.abs(ours).max(), np.abs(sample).max(), 1e-30)
        mean_error = abs(np.abs(ours).mean(dtype=np.float64) - mean) / max(mean, 1e-30)
        errors[name] = float(max(np.abs(ours[at] - sample).max() / largest, mean_error))
    return errors
