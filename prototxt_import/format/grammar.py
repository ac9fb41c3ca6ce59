"""The grammar of prototxt files: a text becomes a tree of fields that remember their lines."""

import io
import re
from pathlib import Path
from typing import NamedTuple

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe
from pspnet_repro.weights import recognize

MAX_DEPTH = 16
MAX_BYTES = 2 ** 22  # the largest released one has 107 thousand

_TOKEN = re.compile(r"""(?P<space>[ \t\r\f\v\n]+|\#[^\n]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?)(?![A-Za-z0-9_.]))
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<mark>[{}<>:;,\[\]-])""", re.X)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}
# A string, or a comment.
_COMMENT = re.compile(rb"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|#[^\n]*""")


class Token(NamedTuple):
    kind: str
    text: str
    line: int


class Field(NamedTuple):
    """A field of the text: its value is a token, or a list of fields."""

    name: str
    value: "Token | list[Field]"
    line: int


def error_at(path: Path | str, line: int, message: str) -> UserError:
    return UserError(f"{path}:{line}: {message}")


def _read_text(path):
    refuse_pipe(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    kind = recognize.kind_of(io.BytesIO(data))
    if kind is recognize.CAFFEMODEL:
        raise UserError(f"{path}: this is a caffemodel, and must be a prototxt; name the prototxt "
                        "first and the caffemodel after it")
    if kind not in (recognize.PROTOTXT, recognize.SOLVER, recognize.TEXT, recognize.UNKNOWN):
        raise UserError(recognize.sentence(path, kind))
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: a prototxt must be at most {MAX_BYTES} bytes")
    try:
        # Editors of some systems put a mark of UTF-8 before the first name.
        text = _without_foreign_comments(data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a prototxt: byte {error.start} is no text (is it a "
                        "caffemodel?)") from error
    if "\0" in text:
        raise UserError(f"{path}: not a prototxt: it holds zero bytes (is it a caffemodel?)")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def _without_foreign_comments(data):
    """The bytes of a file, without its comments where they are in another encoding than UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return _COMMENT.sub(lambda match: match[1] or b" " * len(match[0]), data)
    return data


def _tokens(text, path):
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None and text.startswith("${", position):
            raise error_at(path, line, template(text))
        if match is None:
            raise error_at(path, line, f"unexpected {text[position:position + 10].split()[0]!r}")
        if match.lastgroup != "space":
            yield Token(match.lastgroup, match.group(), line)
        line += match.group().count("\n")
        position = match.end()
    yield Token("end", "the end of the file", line)


def template(text: str) -> str:
    """What is wrong with a text of ${...}, and how to fill it in."""
    names = list(dict.fromkeys(re.findall(r"\$\{\w*\}", text)))
    edits = " ".join(f"-e 's/{name}/VALUE/g'" for name in names[:8])
    return (f"is a template: replace {', '.join(names[:8])} by values: sed {edits} TEMPLATE > "
            "NET.prototxt" if names else "unexpected '${'")


def parse(path: Path | str) -> list[Field]:
    """The fields of a file."""
    tokens = list(_tokens(_read_text(path), path))[::-1]
    fields = _parse_fields(tokens, path, 0)
    if tokens[-1].kind != "end":
        raise error_at(path, tokens[-1].line, f"unexpected {tokens[-1].text!r}")
    return fields


def _parse_fields(tokens, path, depth):
    if depth > MAX_DEPTH:
        raise error_at(path, tokens[-1].line, f"more than {MAX_DEPTH} levels of braces")
    fields = []
    while tokens[-1].kind == "name":
        name = tokens.pop()
        colon = tokens[-1].text == ":" and tokens.pop()
        if colon and tokens[-1].text == "[":
            fields += _parse_list(tokens, path, name, depth)
        elif not colon and not _opens(tokens[-1]):
            raise error_at(path, tokens[-1].line,
                         f"expected ':' or '{{' after {name.text!r}, got {tokens[-1].text!r}")
        else:
            fields.append(_parse_value(tokens, path, name, depth))
        if tokens[-1].kind == "mark" and tokens[-1].text in ",;":
            tokens.pop()
    return fields


def _opens(token):
    return token.kind == "mark" and token.text in _CLOSING


def _parse_value(tokens, path, name, depth):
    """A field of one value: a scalar, or the fields in braces."""
    if not _opens(tokens[-1]):
        return Field(name.text, _parse_scalar(tokens, path, name), name.line)
    closing = _CLOSING[tokens.pop().text]
    field = Field(name.text, _parse_fields(tokens, path, depth + 1), name.line)
    last = tokens.pop()
    if last.kind != "mark" or last.text != closing:
        raise error_at(path, last.line, f"unexpected {last.text!r} in {name.text} of line "
                                      f"{name.line}, which lacks its {closing!r}")
    return field


def _parse_list(tokens, path, name, depth):
    tokens.pop()
    fields = []
    while tokens[-1].text != "]":
        fields.append(_parse_value(tokens, path, name, depth))
        if tokens[-1].text == ",":
            tokens.pop()
        elif tokens[-1].text != "]":
            raise error_at(path, tokens[-1].line, f"expected ',' or ']', got {tokens[-1].text!r}")
    tokens.pop()
    return fields


def _parse_scalar(tokens, path, name):
    token = tokens.pop()
    if token.kind == "mark" and token.text == "-" and tokens[-1].kind in ("number", "name"):
        value = tokens.pop()
        return Token(value.kind, f"-{value.text}", value.line)
    if token.kind not in ("name", "number", "string"):
        raise error_at(path, token.line, f"expected a value of {name.text!r}, got {token.text!r}")
    if token.kind == "string":
        parts = [token]
        while tokens[-1].kind == "string":
            parts.append(tokens.pop())
        return Token("string", "".join(_unescape(part.text[1:-1]) for part in parts), token.line)
    return token


def _unescape(text):
    def replace(match):
        octal, hexadecimal, other = match.groups()
        if octal or hexadecimal:
            return chr(int(octal, 8) if octal else int(hexadecimal, 16))
        return _ESCAPES.get(other, other)
    return _ESCAPE.sub(replace, text)
