"""What commands write: never an input, and never in place of a file that is not this program's."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pspnet_repro.errors import UsageError, UserError, first_line
from pspnet_repro.files import Content, file_sha256, sync, wait_for_lock, write_together

LIST = ".pspnet-files.json"
_BEGIN, _END = b'{"name": "', "\n]\n"
WAY_ON = "choose another --output, or move it away"
_DIGEST = re.compile("[0-9a-f]{64}")


class FileList:
    """Which files of a folder, and of those in it, this program made: .pspnet-files.json.

    It is a JSON list with an entry {"name", "sha256"} a line. An entry is added before its file
    takes its name, so a kill leaves no file of ours unknown. Only a file with the digest of an
    entry of its name is ours: one that somebody changed, or put there instead, is not. Entries are
    only ever added, by one process at a time, over the list's end; one that a kill cut off is
    dropped.

    Raises (every method):
        UserError: the list is damaged, hostile, or cannot be read or written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / LIST
        self._digests = None  # {name: {SHA-256}}, as last read or added

    def exists(self) -> bool:
        return os.path.lexists(self._path)

    def name(self, path: Path) -> str:
        """A path in the folder as the list names it."""
        return path.relative_to(self._folder).as_posix()

    def names(self, path: Path) -> bool:
        """Whether the list has a file of that path, whatever is there now."""
        return self.name(path) in self._known()

    def holds(self, path: Path) -> bool:
        """Whether a path is a file that this program made, as it made it."""
        return (self.names(path) and not path.is_symlink() and path.is_file()
                and file_sha256(path) in self._known()[self.name(path)])

    def add(self, digests: Mapping[str, str]) -> None:
        """Add files, {name: SHA-256}; makes the list where there is none."""
        known = self._known()
        entries = [_text(name, digest) for name, digest in digests.items()
                   if digest not in known.get(name, ())]
        if not entries and self.exists():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._path, "r+b", opener=lambda path, flags: os.open(
                    path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)) as file:
                wait_for_lock(file)
                # The end of the last whole entry, over which the list goes on.
                data = file.read()
                end = data.rfind(b"}") + 1
                file.seek(end)
                file.truncate()
                start = ",\n" if end else "[\n"
                file.write((start * bool(entries or not end) + ",\n".join(entries) + _END).encode())
                sync(file)
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {first_line(error)}") from error
        for name, digest in digests.items():
            known.setdefault(name, set()).add(digest)

    def _known(self):
        if self._digests is None:
            self._digests = self._read()
        return self._digests

    def _read(self):
        if not self.exists():
            return {}
        if self._path.is_symlink() or not self._path.is_file():
            raise UserError(f"{self._path}: must be a file; {WAY_ON}")
        try:
            data = self._path.read_bytes()
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read: {first_line(error)}") from error
        digests, end = {}, data.rfind(b"}") + 1
        for number, line in enumerate(data[:end].split(b"\n") if end else (), 1):
            try:
                if number > 1:
                    name, digest = _entry(json.loads(line.removesuffix(b",")))
                    digests.setdefault(name, set()).add(digest)
                elif line != b"[":
                    raise ValueError("must be [")
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                raise self._damaged(number, error) from error
        # The list's end, or what a kill left of it or of one more entry.
        rest, start = data[end:], b",\n" if end else b"[\n"
        ends = (_END.encode() if end else start + _END.encode()), start + _BEGIN
        if not (any(whole.startswith(rest) for whole in ends) or rest.startswith(ends[1])):
            raise self._damaged(data.count(b"\n", 0, end) + 1, "must be an entry or the list's end")
        return digests

    def _damaged(self, number, why):
        return UserError(
            f"{self._path}, line {number}: no line of this program's list of its files: "
            f"{first_line(why)}; choose another --output, or move the list and the results beside "
            "it away")


def _text(name, digest):
    """An entry, with a closing brace at its end alone, so that a cut one is told by its lack."""
    return json.dumps({"name": name, "sha256": digest})[:-1].replace("}", "\\u007d") + "}"


def _entry(line):
    """(name, digest) of a line of a FileList; ValueError says what is wrong with it."""
    name, digest = line["name"], line["sha256"]
    if (type(name) is not str or not name or "\0" in name or PurePosixPath(name).is_absolute()
            or ".." in PurePosixPath(name).parts):
        raise ValueError(f"name must be a path inside the folder, got {str(name)[:80]!r}")
    if type(digest) is not str or not _DIGEST.fullmatch(digest):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {str(digest)[:80]!r}")
    return name, digest


class Outputs:
    """The files that a command writes: never an input, and never in place of a file that this
    program did not make.

    Args:
        folder: of the results, which has one FileList for all that is in it; None: every file is
            in the list of its own folder.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder
        self._lists = {}

    def _list(self, path):
        folder = path.parent if self._folder is None else self._folder
        return self._lists.setdefault(folder, FileList(folder))

    def made(self, path: Path) -> bool:
        """Whether this program made the file."""
        return self._list(path).holds(path)

    def adopt(self, paths: Iterable[Path]) -> None:
        """Make the folder's list, with those of `paths` that are there; nothing where it has one.

        For results of an earlier version, which kept no list: call it where they are known to be.
        """
        files = FileList(self._folder)
        if not files.exists():
            files.add({files.name(path): file_sha256(path) for path in paths if path.is_file()})

    def claim(self, paths: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
        """Refuse, before any work, to write `paths` where that must not be.

        Args:
            inputs: paths of what is read. Links of a file are the same file.
        Raises:
            UsageError: an output has no name, is an input or is there twice.
            UserError: something is in an output's place that this command did not make.
        """
        paths = list(paths)
        read = {identity: path for path in inputs for identity in _identities(path)}
        taken = set()
        for path in paths:
            if not path.name:
                raise UsageError(f"--output must name a file, got {str(path)!r}")
            real, *others = _identities(path)
            if not read.keys().isdisjoint([real, *others]):
                raise UsageError(f"--output {path} is also read: choose another, no output may be "
                                 "an input")
            if real in taken:
                raise UsageError(f"--output {path} is written twice: outputs must have different "
                                 "names")
            taken.add(real)
            above = next(folder for folder in path.parents if os.path.lexists(folder))
            if not above.is_dir():
                raise UserError(f"{above}: must be a folder, as {path} goes there; {WAY_ON}")
        self._refuse_foreign(paths)

    def _foreign(self, paths):
        return [path for path in paths if os.path.lexists(path) and not self.made(path)]

    def _refuse_foreign(self, paths):
        if foreign := self._foreign(paths):
            path = foreign[0]
            why = ("was changed after this program wrote it" if self._list(path).names(path)
                   else "is there already, and this command did not make it")
            more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
            raise UserError(f"{path}: {why}{more}; it is not overwritten: {WAY_ON}")

    def write(self, contents: Mapping[Path, Content]) -> None:
        """`write_together`; raises UserError as `claim`, for what came after that."""
        if self._foreign(contents):
            self._lists.clear()  # another process may have added to them
        self._refuse_foreign(contents)
        write_together(contents, self._add)

    def _add(self, parts):
        digests = {}
        for path, part in parts.items():
            files = self._list(path)
            digests.setdefault(files, {})[files.name(path)] = file_sha256(part.name)
        for files, entries in digests.items():
            files.add(entries)


def _identities(path):
    """What the same file has in common under all its names."""
    identities = []
    # What fails is not there, or has a name that no file can have.
    with contextlib.suppress(OSError, ValueError):
        identities.append(os.path.realpath(path))
        status = os.stat(path)
        identities.append((status.st_dev, status.st_ino))
    return identities or [str(path)]
