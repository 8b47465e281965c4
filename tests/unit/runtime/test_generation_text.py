"""From tokens to text: whole characters, and nothing of a stop string."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_runtime.generation.text import Detokenizer, Stopper


def by_bytes(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes, as byte-level ones have them for rare characters."""
    return bytes(tokens).decode(errors="replace")


def spaced(tokens: Sequence[int]) -> str:
    """A tokenizer that leaves out the space of the first word, as sentencepiece does."""
    return " ".join(f"w{number}" for number in tokens)


@given(st.text())
def test_characters_come_whole_and_none_is_lost(text: str) -> None:
    made = Detokenizer(by_bytes)
    pieces = [made.add(number) for number in text.encode()]
    assert "".join(pieces) + made.end() == text.rstrip("\N{REPLACEMENT CHARACTER}")
    assert all(piece.count("\N{REPLACEMENT CHARACTER}") <= text.count("\N{REPLACEMENT CHARACTER}") for piece in pieces)


def test_half_a_character_at_the_end_is_left_out() -> None:
    made = Detokenizer(by_bytes)
    assert "".join(made.add(number) for number in "a€".encode()[:-1]) + made.end() == "a"


def test_the_space_between_tokens_is_kept() -> None:
    made = Detokenizer(spaced)
    assert [made.add(number) for number in (1, 2, 3)] == ["w1", " w2", " w3"]


def test_a_token_without_text_changes_nothing() -> None:
    made = Detokenizer(lambda tokens: "".join(chr(number) for number in tokens if number))
    assert [made.add(number) for number in (97, 0, 98)] == ["a", "", "b"]
    assert made.end() == ""


@pytest.mark.parametrize(
    ("stops", "pieces", "sent"),
    [
        (["END"], ["one E", "N", "D two"], "one "),
        (["END"], ["one EN", "E"], "one ENE"),
        (["\n\n"], ["a\n", "b\n", "\n"], "a\nb"),
        (["b", "ab"], ["xab"], "x"),
        (["aab"], ["a", "a", "a", "b"], "a"),
        (["", "x"], ["no"], "no"),
        ([], ["all", " of it"], "all of it"),
    ],
)
def test_nothing_of_a_stop_string_is_sent(stops: list[str], pieces: list[str], sent: str) -> None:
    made = Stopper(stops)
    out = "".join(made.add(piece) for piece in pieces)
    assert out + ("" if made.stopped else made.end()) == sent


@given(st.text("ab"), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3), st.integers(1, 4))
def test_pieces_say_the_same_as_the_whole(text: str, stops: list[str], size: int) -> None:
    made, sent = Stopper(stops), ""
    for at in range(0, len(text), size):
        sent += made.add(text[at : at + size])
    sent += "" if made.stopped else made.end()
    # How much comes in one piece may decide which stop string is seen first, never what is sent after one.
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert made.stopped == bool(found)
    assert text.startswith(sent)
    assert not any(stop in sent for stop in stops)
    if not found:
        assert sent == text
