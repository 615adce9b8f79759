"""The documentation's calls of training are valid."""

import pytest
from support import command_lines

from training.__main__ import _parser
from training.preset import load_preset


@pytest.mark.parametrize(("page", "arguments"), command_lines("python -m training"))
def test_every_call_of_training_in_a_page_is_valid(page: str, arguments: list[str]) -> None:
    parsed = _parser().parse_args(arguments)
    assert not parsed.preset or load_preset(parsed.preset, parsed.set), page
