"""What the parts tell each other: bodies that both sides can read."""

import json

import msgspec
import pytest

from moorage_common.facts import TERMINATION_MESSAGE_LIMIT, Health, LoadError, Termination
from moorage_common.openai_errors import error_body
from moorage_common.shape import Shape


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


def test_a_shape_goes_with_the_reason_and_the_text_is_cut_for_it() -> None:
    shape = Shape(
        architecture="llama", stored_bytes=2**40, tensor_bytes={f"type {n}": n for n in range(500)}, layers=80
    )
    encoded = Termination(LoadError.OUT_OF_MEMORY, "x" * 10_000, shape).encode()

    assert len(encoded) <= TERMINATION_MESSAGE_LIMIT
    found = Termination.decode(encoded.decode())
    assert found is not None
    assert found.shape == Shape(architecture="llama", stored_bytes=2**40, layers=80)


@pytest.mark.parametrize(
    "odd", [{"storedBytes": 2**63}, {"storedBytes": 1.5}, {"layers": -1}, {"quantization": "q" * 99}]
)
def test_a_shape_that_is_out_of_bounds_is_no_health_of_ours(odd: dict[str, object]) -> None:
    shape = {"architecture": "llama", "storedBytes": 1, **odd}

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps({"status": "loading", "shape": shape}), type=Health)
