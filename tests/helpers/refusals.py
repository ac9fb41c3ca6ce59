"""Mistakes that must end in one line."""

import pytest

from pspnet_repro.errors import UserError


def refused(words, function, *arguments):
    """UserError in one line that matches `words`."""
    with pytest.raises(UserError, match=words) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
