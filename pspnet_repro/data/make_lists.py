"""Writes list files from folders of images and labels."""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pspnet_repro.data.folders import pair_folders
from pspnet_repro.data.images import png_bytes
from pspnet_repro.data.pairs import Pair, list_text
from pspnet_repro.errors import UserError
from pspnet_repro.outputs import Outputs
from pspnet_repro.words import counted

_BATCH = 64  # label files that are written together


def make_lists(images: Path, labels: Path, output: Path, val: float = 0.1, seed: int = 0) -> None:
    """Write train.txt and val.txt for two folders, see pair_folders, and say how to go on.

    Args:
        val: share of the images in val.txt, at least one; 0 for no val.txt.
        seed: of the draw, which depends on it and on the images' names alone.
    Raises:
        UserError: the files do not pair, there is one image alone, or a list is there already.
    """
    pairs = pair_folders(images, labels)
    lists = split_pairs(pairs, images, val, seed)
    texts = {output / f"{split}.txt": list_text(part, output) for split, part in lists.items()}
    outputs = Outputs(output)
    outputs.claim(texts, [path for pair in pairs for path in (pair.image, pair.label)])
    outputs.write(texts)
    for split, part in lists.items():
        print(f"{output / split}.txt: {counted(len(part), 'pair')}")
    data = shlex.quote(str(output))
    print(f"for example {pairs[0].image} has the label {pairs[0].label}\n"
          f"check them: pspnet check-data --data {data} --classes NUMBER\n"
          f"train: pspnet train --data {data} --classes NUMBER --output RUN")


def split_pairs(pairs: list[Pair], root: Path, val: float, seed: int) -> dict[str, list[Pair]]:
    """{"train": Pairs, "val": Pairs}, see make_lists; `root`: folder that names start from."""
    if not val:
        return {"train": pairs}
    if len(pairs) < 2:
        raise UserError(f"{root}: one image cannot be both in train.txt and in val.txt: add "
                        "images, or give --val 0")
    drawn = sorted(pairs, key=lambda pair: hashlib.sha256(
        f"{seed} {pair.image.relative_to(root).as_posix()}".encode(errors="surrogateescape")
    ).digest())
    chosen = {pair.image for pair in
              drawn[:min(max(1, round(val * len(pairs))), len(pairs) - 1)]}
    return {"train": [pair for pair in pairs if pair.image not in chosen],
            "val": [pair for pair in pairs if pair.image in chosen]}


def write_labels(output: Path, folder: str, pairs: dict[str, Sequence[Pair]],
                 sources: dict[Path, object], read: Callable[[object], np.ndarray]) -> None:
    """Write labels as PNGs, and lists with paths from `output`.

    Args:
        folder: in the ImageSets of `output`, for the lists.
        pairs: {split: Pairs}.
        sources: {path of a label: what it is made of}, of the labels that are made; those that an
            earlier call made are left as they are.
        read: (source) -> (H, W) uint8.
    Raises:
        UserError: a file is missing, or is there already and no output.
    """
    for path in (path for part in pairs.values() for pair in part for path in
                 (pair.image, *([pair.label] if pair.label not in sources else []))):
        if not path.exists():
            raise UserError(f"{path}: no such file; unpack the whole archive there")
    texts = {output / "ImageSets" / folder / f"{split}.txt": list_text(part, output)
             for split, part in pairs.items()}
    outputs = Outputs(output)
    missing = [path for path in sources if not outputs.made(path)]
    outputs.claim([*texts, *missing])
    with tqdm(total=len(missing), desc="convert", unit="label") as bar:
        for start in range(0, len(missing), _BATCH):
            batch = missing[start:start + _BATCH]
            outputs.write({path: png_bytes(read(sources[path])) for path in batch})
            bar.update(len(batch))
    outputs.write(texts)
