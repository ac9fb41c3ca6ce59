"""Type hints of what other modules and programs call."""

import ast

import pytest
from helpers.paths import ROOT

FOLDERS = sorted({path.parent.relative_to(ROOT).as_posix()
                  for package in ("pspnet_repro", "prototxt_import", "experiments")
                  for path in (ROOT / package).rglob("*.py")
                  if not {"results", "runs"} & set(path.parts)})


def _public(body):
    """The functions of a module or class, and of its classes, that have a public name."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node.body)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
                node.name == "__init__" or not node.name.startswith("_")):
            yield node


def _lacks(function):
    """Names of arguments without a hint, and "return"."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    lacking = [argument.arg for argument in named if argument.annotation is None
               and argument.arg not in ("self", "cls") and not argument.arg.startswith("_")]
    # What __init__ returns is plain.
    return lacking + ["return"] * (function.returns is None and function.name != "__init__")


def _unhinted(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {', '.join(lacking)}"
            for function in _public(tree.body) if (lacking := _lacks(function))]


def test_a_missing_hint_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "m.py"
    path.write_text("def f(a, b: int, *args, _c, **more): ...\nclass C:\n"
                    "    def __init__(self, d, e=0): ...\n    def g(self) -> int: ...\n"
                    "    def _h(self, i): ...\nclass _D:\n    def f(self, a): ...\n")
    assert _unhinted(path) == ["m.py:1 f: a, return", "m.py:3 __init__: d, e"]


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_public_functions_have_type_hints(folder):
    paths = [path for path in sorted((ROOT / folder).glob("*.py"))
             if not path.name.endswith("_pb2.py")]
    assert paths and not [line for path in paths for line in _unhinted(path)]
