"""Twenty steps of the command `train` on drawn scenes, with processes that read images."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pspnet_repro.data import scenes
from pspnet_repro.defaults import ROOT

from .part import Row, Setting

LARGE = ["--max-iter", "20", "--workers", "4", "--batch-size", "16", "--crop-size", "473"]
MINIATURE = ["--max-iter", "2", "--workers", "1", "--batch-size", "2", "--crop-size", "57",
             "--blocks", "1,1,1,1", "--width", "0.25", "--stem-width", "8"]


def work(setting: Setting) -> Iterator[Row]:
    options = MINIATURE if setting.small else LARGE
    with tempfile.TemporaryDirectory() as folder:
        data = scenes.write_scenes(Path(folder), train=4 if setting.small else 64, val=1)
        run = Path(folder, "run")
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "pspnet_repro", "train", "--data", data,
                        "--output", run, "--device", setting.device, *options], cwd=ROOT,
                       check=True)
        seconds = time.monotonic() - began
        losses = [json.loads(line) for line in
                  (run / "losses.jsonl").read_text(encoding="utf-8").splitlines()]
        yield {"what": " ".join(["pspnet train", *options]), "seconds": seconds,
               "steps": len(losses), "first loss": losses[0]["loss"],
               "last loss": losses[-1]["loss"]}
        log = (run / "log.txt").read_text(encoding="utf-8").splitlines()
        yield {"what": [line for line in log if " s per step" in line][-1]}
