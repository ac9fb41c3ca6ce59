"""What may be given as weights."""

import pytest

from pspnet_repro import load_model
from pspnet_repro.errors import UsageError
from pspnet_repro.weights.source import read_weights


@pytest.mark.parametrize("wrong", [None, 3, b"x.pt", ("N.prototxt",), ("a", "b", "c"), ("a", None)])
def test_weights_are_a_path_or_a_pair(wrong):
    with pytest.raises(UsageError, match="weights must be a path, or a pair of paths"):
        read_weights(wrong)
    with pytest.raises(UsageError, match="weights must be the path of a file, got "):
        load_model(wrong)
