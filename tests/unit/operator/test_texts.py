"""What others say, made fit for a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.status.texts import printable


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("plain text 文字 🙂", "plain text 文字 🙂"),
        ("LIE\x1b[31m\nSECOND LINE", "LIE [31m SECOND LINE"),
        ("a\x9b2J\x7fb", "a 2J b"),
        ("H100\u202e001", "H100 001"),
        ("a\u2028\u200b\ud800b", "a b"),
    ],
)
def test_nothing_that_moves_a_cursor_is_told(said: str, told: str) -> None:
    assert printable(said) == told
    assert printable({"a": [said, {"b": said}], "n": 1, "none": None}) == {
        "a": [told, {"b": told}],
        "n": 1,
        "none": None,
    }


@given(st.text())
def test_what_is_told_has_no_controls_and_is_told_the_same_again(said: str) -> None:
    told = printable(said)
    assert not [letter for letter in told if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")]
    assert printable(told) == told
    assert json.loads(json.dumps(told).encode()) == told
