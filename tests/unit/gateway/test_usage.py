"""Tokens of requests and answers: what is told is believed, what is not is estimated."""

import json

import pytest

from moorage_gateway.usage import Tokens, of_input, told, wish_of


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', Tokens(3, 0)),
        (b'{"usage":{"total_tokens": 9}}', Tokens(9, 0)),
        (b'data: {"usage":null}\n\ndata: {"usage":{"completion_tokens":2,"prompt_tokens":1}}\n\n', Tokens(1, 2)),
        (b'{"usage":null}', None),
        (b'{"usage":{"prompt_tokens":"many"}}', None),
        (json.dumps({"text": '"prompt_tokens": 5'}).encode(), None),
        (b"", None),
    ],
)  # fmt: skip
def test_usage_is_read_from_the_end_of_an_answer(answer: bytes, tokens: Tokens | None) -> None:
    assert told([answer]) == tokens
    assert told([answer[place : place + 7] for place in range(0, len(answer), 7)]) == tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b"{}", 256),
        (b'{"max_tokens":10}', 10),
        (b'{"max_tokens":10,"max_completion_tokens":20,"n":3}', 60),
        (b'{"max_tokens":-5,"n":0}', 256),
        (b'{"max_tokens":1e3}', 256),
        (b'{"max_tokens":99999999999999}', 256),
        (b'{"max_tokens":[[[]]]}', 256),
        (b'{"metadata":{"max_tokens":1}}', 256),
        (b"[" * 100_000, 256),
        (b"no JSON", 256),
    ],
)
def test_what_a_request_says_of_its_answer(body: bytes, tokens: int) -> None:
    assert wish_of(body).tokens(256.0) == tokens


def test_an_image_is_not_text() -> None:
    image = json.dumps({"url": "data:image/png;base64," + "A" * 10**6}).encode()
    assert of_input(image) < 1100
    assert of_input(b'{"prompt":"%b"}' % (b"word " * 1000)) == 1253
    assert of_input(b';base64,"' * 10**5) < 64 * 1000 + 10**6
