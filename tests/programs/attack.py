"""Attacks that repeat: kills of a training at random moments, damaged weights, images, lists,
prototxts and caffemodels. Prints the seed; exit code 1 where something does not hold.

python -m programs.attack [--seconds 600] [--seed N]
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from helpers import import_fuzz
from helpers.commands import SMALL
from helpers.paths import ROOT

from pspnet_repro import PSPNet
from pspnet_repro.weights import model_file

STEPS = 12
SIZES = ("--crop-size", "57", "--threads", "1")


def pspnet(*words, kill_after=None):
    """(exit code, standard error) of a command; it is killed after some seconds."""
    process = subprocess.Popen([sys.executable, "-m", "pspnet_repro", *map(str, words)], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               errors="replace")
    try:
        said = process.communicate(timeout=kill_after or 120)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[1]
    return process.returncode, said


def prepare(folder):
    """Four images with labels and their list, and a small network's weights."""
    draw = np.random.default_rng(0)
    for k in range(4):
        label = np.kron(draw.integers(0, 4, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), np.stack([60 * label] * 3, 2))
        cv2.imwrite(str(folder / f"{k}_label.png"), label)
    (folder / "train.txt").write_text("".join(f"{k}.png {k}_label.png\n" for k in range(4)))
    model_file.save_model(folder / "w.pt", PSPNet(4, width=0.125, stem="classic", stem_width=8,
                                                  blocks=(1, 1, 1, 1)), crop_size=57, base_size=64)


def train(folder, output, **how):
    return pspnet("train", "--data", folder, "--classes", 4, *SMALL, "--bins", "1,2", *SIZES,
                  "--batch-size", 2, "--max-iter", STEPS, "-o", output, **how)


def kill_trainings(folder, draw, until):
    """What a training that was killed again and again has otherwise than one that was not."""
    output = folder / f"killed-{draw.randrange(10 ** 9)}"
    while time.monotonic() < until:
        code, said = train(folder, output, kill_after=draw.uniform(0.5, 8))
        if code not in (0, -9):
            return f"a killed training does not resume: {said[-300:]}"
        if code == 0:
            whole = (folder / "whole" / "weights.pt").read_bytes()
            same = (output / "weights.pt").read_bytes() == whole
            return "" if same else f"{output}: other bits than without kills"
    return ""


def damage(folder, draw):
    """What a command did with one damaged file that it must not: a traceback, or another code."""
    name, words = draw.choice((
        ("w.pt", ("predict", "0.png", "-o", "out", "--weights", "damaged", *SIZES)),
        ("0.png", ("predict", "damaged", "-o", "out", "--weights", "w.pt", *SIZES)),
        ("train.txt", ("check-data", "--data", "damaged", "--classes", 4))))
    data = (folder / name).read_bytes()
    path = folder / f"damaged{Path(name).suffix}"
    path.write_bytes(import_fuzz.mutate("weights", data, [("weights", data)], draw))
    code, said = pspnet(*(folder / word.replace("damaged", path.name)
                          if isinstance(word, str) and (folder / word).suffix or word == "out"
                          else path if word == "damaged" else word for word in words))
    wrong = "Traceback" in said or code not in (0, 1, 2)
    return f"{name} damaged: exit {code}: {said[-300:]}" if wrong else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    draw, until = random.Random(args.seed), time.monotonic() + args.seconds
    print(f"seed {args.seed}, {args.seconds:g} s", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    wrong, counts = [], {"trainings": 0, "files": 0, "imports": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        code, said = train(folder, folder / "whole")
        if code:
            sys.exit(f"the training that is not killed ends with {code}: {said}")
        while time.monotonic() < until:
            wrong += filter(None, [damage(folder, draw)])
            counts["files"] += 1
            if draw.random() < 0.2:
                wrong += filter(None, [kill_trainings(folder, draw, until)])
                counts["trainings"] += 1
            if draw.random() < 0.2:
                first = draw.randrange(10 ** 6)
                import_fuzz.main(first, first + 50)
                counts["imports"] += 50
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    for sentence in wrong:
        print(f"wrong: {sentence}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
