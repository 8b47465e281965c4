"""The Secret that a key is stored as, and what is refused before one is made."""

from base64 import b64decode
from datetime import UTC, datetime

import pytest

from moorage_cli.keys import Wanted, secret_of
from moorage_cli.output import CommandError

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def expires(text: str) -> str:
    """The time that is stored."""
    _, secret = secret_of(Wanted(name="app", models=["*/*"], expires=text), "moorage-keys", NOW)
    return b64decode(secret["data"]["expires"]).decode()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("90d", "2027-03-01T00:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T10:00:00+02:00", "2027-01-31T10:00:00+02:00"),
    ],
)
def test_a_time_is_a_date_a_moment_or_a_duration(text: str, stored: str) -> None:
    assert expires(text) == stored


@pytest.mark.parametrize("text", ["2020-01-01", "2020-01-01T00:00:00Z", "2026-12-01"])
def test_cluster_21_a_key_that_would_be_expired_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=f"--expires {text} is in the past"):
        expires(text)


def test_cluster_21_a_scope_that_does_not_exist_is_named() -> None:
    with pytest.raises(CommandError) as error:
        secret_of(Wanted(name="app", scopes=["admin"]), "moorage-keys", NOW)
    assert str(error.value) == 'invalid scope "admin": must be "generate" or "manage"'
