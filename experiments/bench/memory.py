"""Memory and time that testing one street photograph takes beside the network."""

import sys
import time

import numpy as np
import torch

from pspnet_repro.errors import check_printed, command
from pspnet_repro.evaluation import MULTI_SCALE, predict_probabilities

from ..peak_memory import peak_bytes

CLASSES = 19


class NoNetwork:
    """Gives logits at an eighth of the size, for nothing."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(len(x), CLASSES, (x.shape[2] - 1) // 8 + 1, (x.shape[3] - 1) // 8 + 1)


@command
def main() -> None:
    torch.set_num_threads(2)
    before, began = peak_bytes(), time.perf_counter()
    predict_probabilities(NoNetwork(), np.zeros((1024, 2048, 3), np.uint8), classes=CLASSES,
                          base_size=2048, crop_size=713, scales=MULTI_SCALE)
    print(f"1024x2048, {CLASSES} classes, {len(MULTI_SCALE)} scales, 2 threads: "
          f"{(peak_bytes() - before) / 2 ** 30:.2f} GiB, {time.perf_counter() - began:.1f} s")
    check_printed()


if __name__ == "__main__":
    sys.exit(main())
