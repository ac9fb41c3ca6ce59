"""Damaged copies of the small golden files, loaded one after the other; run by a test.

python -m helpers.import_fuzz FIRST LAST loads the mutations with these seeds and prints a JSON
object: how many became a network, how many an error, what went wrong otherwise, and the most memory
used.
"""

import json
import random
import re
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from experiments.peak_memory import peak_bytes
from helpers.golden import GOLDEN
from prototxt_import import load_net, load_solver
from pspnet_repro.errors import UserError

SECONDS = 20
NUMBERS = ("0", "-1", "1", "2", "7", "255", "65536", "2147483647", "4294967295", "-2147483648",
           "9223372036854775807", "1e30", "nan", "inf", "0.5", "99999999999999999999")


def originals():
    """[(kind, bytes)] of the files to damage."""
    files = []
    for path in sorted((GOLDEN / "layers").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            files.append(("net", str(arrays["prototxt"]).encode()))
    for path in sorted((GOLDEN / "solver").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            files += [("net", str(arrays["net"]).encode()),
                      ("solver", str(arrays["solver"]).encode())] * 4
        files += [("weights", path.with_suffix(".caffemodel").read_bytes())] * 12
    return files


def mutate(kind, data, files, draw):
    """A copy of `data` with one to four changes drawn at random."""
    others = [other for k, other in files if (k == "weights") == (kind == "weights")]
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1)
        change = draw.randrange(6 if kind == "weights" else 12)
        other = draw.choice(others)
        start = draw.randrange(len(other))
        if change == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif change == 1:
            del data[at:at + draw.randint(1, 40)]
        elif change == 2:
            del data[at:]
        elif change == 3:
            data[at:at] = data[at:at + draw.randint(1, 200)]
        elif change == 4:
            data[at:at] = other[start:start + draw.randint(1, 200)]
        elif change == 5:
            data[at:at + 4] = draw.randbytes(draw.randint(1, 12))
        elif change < 8:
            _replace(data, rb"(?<=: )-?[\d.]+", [n.encode() for n in NUMBERS], draw)
        elif change < 10:
            _replace(data, rb'"[^"]*"', re.findall(rb'"[^"]*"', bytes(data)), draw)
        else:
            # A line more, from this or another text, where a line ends.
            ends = [found.end() for found in re.finditer(rb"\n", data)]
            line = draw.choice(draw.choice((other, bytes(data))).splitlines(True) or [b""])
            end = draw.choice(ends or [0])
            data[end:end] = line
    return bytes(data)


def _replace(data, pattern, values, draw):
    found = list(re.finditer(pattern, data))
    if found and values:
        place = draw.choice(found)
        data[place.start():place.end()] = draw.choice(values)


def load(kind, data, folder):
    """Load a damaged file the way a user would."""
    path = folder / "damaged"
    path.write_bytes(data)
    if kind == "net":
        load_net(path, phase="TRAIN")
    elif kind == "solver":
        load_solver(path)
    else:
        load_net(folder / "net.prototxt", path)


def _out_of_time(*_):
    raise TimeoutError(f"more than {SECONDS} seconds")


def main(first, last):
    """The object that the program prints."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = originals()
    result = {"networks": 0, "errors": 0, "wrong": []}
    signal.signal(signal.SIGALRM, _out_of_time)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = next(data for kind, data in files if kind == "net" and b"mini_pspnet" in data)
        (folder / "net.prototxt").write_bytes(net)
        for seed in range(first, last):
            draw = random.Random(seed)
            kind, data = draw.choice(files)
            signal.alarm(SECONDS)
            try:
                load(kind, mutate(kind, data, files, draw), folder)
                result["networks"] += 1
            except UserError as error:
                result["errors"] += 1
                if "\n" in str(error):
                    result["wrong"].append(f"seed {seed}: several lines: {error}")
            # Whatever else comes out of a load is what this looks for.
            except Exception as error:
                result["wrong"].append(f"seed {seed}, {kind}: {type(error).__name__}: {error}")
            finally:
                signal.alarm(0)
    result["peak_bytes"] = peak_bytes()
    return result


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
