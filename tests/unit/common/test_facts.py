"""What the parts tell each other: bodies that both sides can read."""

import json

from moorage_common.facts import TERMINATION_MESSAGE_LIMIT, LoadError, Termination
from moorage_common.openai_errors import error_body


def test_a_termination_message_survives() -> None:
    message = Termination(LoadError.OUT_OF_MEMORY, 'needs "more" memory')

    assert Termination.decode(message.encode().decode()) == message


def test_a_long_termination_message_is_cut_to_what_the_kubelet_keeps() -> None:
    encoded = Termination(LoadError.ENGINE_FAILED, "ü" * 10_000).encode()

    assert len(encoded) <= TERMINATION_MESSAGE_LIMIT
    found = Termination.decode(encoded.decode())
    assert found is not None
    assert found.message.endswith("…")


def test_what_is_no_termination_message_is_none() -> None:
    assert Termination.decode("Killed") is None
    assert Termination.decode('{"reason": "Unheard", "message": ""}') is None


def test_an_error_has_openais_shape() -> None:
    assert json.loads(error_body("no", param="model", code="x")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "model", "code": "x"}
    }
