"""Text files that people write: lists, label maps."""

from pathlib import Path

from pspnet_repro.data.images import open_header
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe


def read_text(path: Path | str, kind: str, content: str, way_on: str = "") -> str:
    """The text of a file in UTF-8.

    Args:
        kind: "list", "label map".
        content: what must be in it, in words.
        way_on: what to do where there is no such file, or "".
    Raises:
        UserError: there is none, or it is something else: an image, a folder, another encoding.
    """
    path = Path(path)
    refuse_pipe(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and must be {content}")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {kind} file{'; ' * bool(way_on)}{way_on}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read as text: {first_line(error)}") from error
    try:
        # Some editors begin a file with a byte order mark.
        text, bad = data.decode("utf-8-sig"), data.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad < 0:
        return text
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: cannot be read as text: it is UTF-16; save it as UTF-8")
    image = open_header(path, data)
    if image is not None:
        raise UserError(f"{path}: is an image ({image.format}), and must be {content}")
    raise UserError(f"{path}, line {data.count(10, 0, bad) + 1}: must be text in UTF-8, got the "
                    f"byte 0x{data[bad]:02x}; save the {kind} as UTF-8")
