"""Options that several commands share."""

from pathlib import Path

import pytest

import pspnet_repro.__main__ as commands
from pspnet_repro.commands.options import weights


@pytest.mark.parametrize("words", [
    ["N.prototxt,"], ["W.caffemodel,"], [",W.caffemodel"], ["W.caffemodel,N.prototxt"]])
def test_a_pair_of_weights_has_an_order(capsys, words):
    for command in (["predict", "p.jpg", "-o", "out", "--weights"], ["export", "-o", "a", "b"],
                    ["train", "--output", "out", "--data", "d", "--initial-weights"],
                    ["table", "--backbone"]):
        value = f"50={words[0]}" if command[0] == "table" else words[0]
        with pytest.raises(SystemExit, match="2"):
            commands.build_parser().parse_args([*command, value])
        assert (f"must be a file, or NET.prototxt,W.caffemodel in this order, got {words[0]!r}"
                in capsys.readouterr().err)


def test_a_pair_of_weights_may_hold_commas():
    assert weights("a,b.prototxt,w,x.caffemodel") == (Path("a,b.prototxt"), Path("w,x.caffemodel"))
    assert weights("a,b.pt") == Path("a,b.pt")
