"""What the values or colours of label files mean, as the user says it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.labels import IDENTITY, WRONG
from pspnet_repro.data.text import read_text
from pspnet_repro.errors import UserError

_CONTENT = ("a text file with lines VALUE CLASS or RED GREEN BLUE CLASS, where CLASS is a number "
            "from 0 or the word ignore")


@dataclass(frozen=True)
class LabelMap:
    """What a label map and a list of ignored values say."""

    # (value, class), 255 for no class; empty for a map of colours and for none.
    values: tuple[tuple[int, int], ...] = ()
    # (red, green, blue, class), see data.labels.read_label_file.
    colours: tuple[tuple[int, int, int, int], ...] | None = None
    ignored: tuple[int, ...] = ()  # values that are unlabelled, whatever else is said
    largest: tuple[int, str] | None = None  # class of the map, and its place in words

    def over(self, table: bytes | None = None) -> bytes:
        """The table of data.pairs.Pair: 256 bytes.

        A value that the map names means what it says there. Others mean what they do in `table`;
        where that is None and there is a map they mean nothing, but for 255.
        """
        base = table or (bytes([*[WRONG] * 255, IGNORE_INDEX]) if self.values else IDENTITY)
        meaning = dict(enumerate(base)) | dict(self.values) | dict.fromkeys(self.ignored,
                                                                           IGNORE_INDEX)
        return bytes(meaning.values())

    def check_classes(self, classes: int) -> None:
        """Raise UserError where the map names a class that is not below their number."""
        if self.largest is not None and self.largest[0] >= classes:
            number, place = self.largest
            raise UserError(f"{place}: a class must be below their number, {classes}, got {number}"
                            "; give another --classes, or write ignore")

    def digest(self) -> str:
        """SHA-256 in hexadecimal of all that it says."""
        return hashlib.sha256(repr((sorted(self.values), sorted(self.colours or ()),
                                    sorted(set(self.ignored)))).encode()).hexdigest()


def read_label_map(path: Path | str | None, ignored: Iterable[int] = ()) -> LabelMap:
    """The LabelMap of a text file, None for no file, and of ignored values.

    The file has lines `VALUE CLASS`, or in all lines `RED GREEN BLUE CLASS`, separated by white
    space or commas. CLASS is 0 to 253, or 255 or `ignore` for pixels without a class. What follows
    a # is left out.

    Raises UserError where the file is missing, or a line holds something else or what a line before
    it has.
    """
    if path is None:
        return LabelMap(ignored=tuple(ignored))
    lines, places = {}, {}
    text = read_text(Path(path), "label map", _CONTENT)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        place = f"{path}, line {number}"
        *key, meaning = _numbers(place, words)
        if lines and len(key) != len(next(iter(lines))):
            raise UserError(f"{place}: must name {'a value' if len(key) > 1 else 'a colour'} as "
                            f"the lines before it, got {line.strip()[:80]!r}")
        if tuple(key) in lines:
            raise UserError(f"{place}: {' '.join(words[:-1])} is in a line before it already: "
                            "leave one of them out")
        lines[tuple(key)] = meaning
        if meaning != IGNORE_INDEX:
            places.setdefault(meaning, place)
    if not lines:
        raise UserError(f"{path}: is empty, and must be {_CONTENT}")
    if not places:
        raise UserError(f"{path}: gives no value a class; add lines with one")
    entries = tuple((*key, meaning) for key, meaning in lines.items())
    said = (entries, None) if len(entries[0]) == 2 else ((), entries)
    return LabelMap(*said, tuple(ignored), max(places.items()))


def _numbers(place, words):
    """A line's numbers; UserError says what is wrong with it."""
    last = str(IGNORE_INDEX) if words[-1].lower() == "ignore" else words[-1]
    numbers = [*words[:-1], last]
    if len(words) not in (2, 4) or not all(
            word.isascii() and word.isdigit() and len(word) < 4 and int(word) < 256
            for word in numbers) or int(last) == WRONG:
        raise UserError(f"{place}: must be VALUE CLASS or RED GREEN BLUE CLASS, with VALUE and "
                        "colours 0 to 255 and CLASS 0 to 253 or the word ignore, got "
                        f"{' '.join(words)[:80]!r}")
    return map(int, numbers)
