"""Names and colours of classes."""

import colorsys
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe

_FOLDER = Path(__file__).parent / "names"
MAX_NAME = 80
_LINES = "write a text file with a line RED GREEN BLUE NAME for each class"
KNOWN = ("ade20k", "voc2012", "cityscapes", "camvid", "camvid-official", "coco-stuff",
         "pascal-context", "mapillary")


@dataclass(frozen=True)
class Classes:
    """Names and colours of all classes, in the order of the labels."""

    names: tuple[str, ...]
    palette_rgb: tuple[tuple[int, int, int], ...]


def read_classes(path: Path | str) -> Classes:
    """Classes from a text file: `RED GREEN BLUE NAME` a line, in the order of the labels. Raises
    UserError where the file is missing, or a line holds something else."""
    path = Path(path)
    refuse_pipe(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {_LINES}, or give --names one of "
                        f"{', '.join(KNOWN)}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: must be text in UTF-8, got the byte "
                        f"0x{error.object[error.start]:02x}; {_LINES}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read as names of classes: {first_line(error)}; "
                        f"{_LINES}") from error
    names, palette = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        words = line.split(maxsplit=3)
        if len(words) < 4 or not all(w.isascii() and w.isdigit() and len(w) < 4 and int(w) < 256
                                     for w in words[:3]):
            raise UserError(f"{path}, line {number}: must be RED GREEN BLUE NAME, each colour "
                            f"0..255, got {line.strip()[:80]!r}")
        name = words[3].strip()
        if not name.isprintable() or len(name) > MAX_NAME:
            raise UserError(f"{path}, line {number}: a name must be at most {MAX_NAME} printable "
                            f"characters, got {name[:80]!r}")
        names.append(name)
        palette.append(tuple(map(int, words[:3])))
    if not names:
        raise UserError(f"{path}: names no classes")
    return Classes(tuple(names), tuple(palette))


def known_classes(name: str) -> Classes:
    """Classes of a benchmark, one of KNOWN.

    COCO-Stuff and PASCAL Context publish no colours: theirs are VOC's colour map.
    """
    return read_classes(_FOLDER / f"{name.removesuffix('-official')}.txt")


def numbered_classes(count: int) -> Classes:
    """Names and colours for classes of which only the number is known."""
    colours = (colorsys.hsv_to_rgb(k * 0.618 % 1, 0.9 - 0.4 * (k // 12 % 2), 1 - 0.4 * (k // 6 % 2))
               for k in range(count))
    return Classes(tuple(f"class {k}" for k in range(count)),
                   tuple(tuple(round(255 * part) for part in colour) for colour in colours))
