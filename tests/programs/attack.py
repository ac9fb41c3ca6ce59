"""Attacks that repeat: kills of a training at random moments, full disks, damaged weights, images,
lists, prototxts and caffemodels. Prints the seed; exit code 1 where something does not hold.

python -m programs.attack [--seconds 600] [--seed N]
"""

from pspnet_repro.errors import stop_on_interrupt

if __name__ == "__main__":
    stop_on_interrupt()

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from helpers import import_fuzz
from helpers.commands import SMALL
from helpers.full_disk import NoMount, small_disk
from helpers.paths import ROOT

from pspnet_repro import PSPNet
from pspnet_repro.weights import model_file

STEPS = 12
LIMIT_SECONDS = 600  # of a command that is not killed: one that hangs fails then
SIZES = ("--crop-size", "57", "--threads", "1")


def pspnet(*words, kill_after=None):
    """(exit code, standard error) of a command; it is killed after some seconds."""
    process = subprocess.Popen([sys.executable, "-m", "pspnet_repro", *map(str, words)], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               errors="replace")
    try:
        said = process.communicate(timeout=kill_after or LIMIT_SECONDS)[1]
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


def fill_disk(folder, draw, _):
    """What a training on a disk that gets full does that it must not; then it resumes on one that
    was made larger. Raises NoMount."""
    disk = folder / "disk"
    size = draw.randint(4, 400)
    with small_disk(disk, size) as resize:
        code, said = train(folder, disk / "run")
        if code and (code != 1 or "No space left" not in said or "Traceback" in said):
            return f"a disk of {size} KiB: exit {code}: {said[-300:]}"
        resize(100_000)
        code, said = train(folder, disk / "run")
        if code:
            return f"a disk of {size} KiB, then a larger one: exit {code}: {said[-300:]}"
        same = (disk / "run" / "weights.pt").read_bytes() == (
            folder / "whole" / "weights.pt").read_bytes()
        return "" if same else f"a disk of {size} KiB: other bits than without"


def damage(folder, draw, _):
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


def import_damaged(_, draw, __):
    """What loads of damaged prototxts and caffemodels did that they must not."""
    first = draw.randrange(10 ** 6)
    return "; ".join(import_fuzz.main(first, first + 50)["wrong"])


# How often each is drawn, of ten times.
ATTACKS = {damage: 6, import_damaged: 2, fill_disk: 1, kill_trainings: 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    draw, until = random.Random(args.seed), time.monotonic() + args.seconds
    print(f"seed {args.seed}, {args.seconds:g} s", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    wrong, counts, weights = [], Counter(), dict(ATTACKS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        code, said = train(folder, folder / "whole")
        if code:
            sys.exit(f"the training that is not killed ends with {code}: {said}")
        while time.monotonic() < until:
            # Each once, then at random.
            attack = next((each for each in weights if not counts[each.__name__]), None) or (
                draw.choices(list(weights), weights.values())[0])
            try:
                wrong += filter(None, [attack(folder, draw, until)])
                counts[attack.__name__] += 1
            except NoMount as error:
                del weights[attack]
                print(f"no full disk is tried: {error}", flush=True)
    print(", ".join(f"{name} {count} times" for name, count in counts.items()))
    for sentence in wrong:
        print(f"wrong: {sentence}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
