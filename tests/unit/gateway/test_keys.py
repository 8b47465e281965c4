"""API keys: what their Secrets may say, and who holds one."""

import hashlib
from base64 import b64encode
from typing import Any

import pytest

from moorage_gateway.keys import KEY_LABEL, ApiKey, KeyInvalidError, Keys, new_key, read_key
from moorage_gateway.routing import ModelKey

SHA256 = hashlib.sha256(b"s3cret").hexdigest()


def secret(identity: Any = "app", **entries: str) -> dict[str, Any]:
    data = {name: b64encode(value.encode()).decode() for name, value in {"sha256": SHA256, **entries}.items()}
    return {"metadata": {"labels": {KEY_LABEL: identity}}, "data": data}


def test_a_secret_says_what_its_key_may() -> None:
    key = read_key(
        secret(
            models="team-a/chat, team-b/*",
            expires="2027-01-31T00:00:00Z",
            requestsPerMinute="60",
            tokensPerMinute="1000",
            priority="8",
        )
    )

    assert key.name == "key:app"
    assert (key.expires, key.requests_per_minute, key.tokens_per_minute, key.priority) == (1801353600.0, 60, 1000, 8)
    may = [ModelKey("team-a", "chat"), ModelKey("team-b", "any")]
    assert all(key.may_use(one) for one in may)
    assert not key.may_use(ModelKey("team-a", "other"))


def test_a_key_without_models_may_nothing() -> None:
    assert not read_key(secret()).may_use(ModelKey("a", "b"))
    assert read_key(secret(models="*/*")).may_use(ModelKey("a", "b"))


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"sha256": "abc"}, "sha256"),
        ({"sha256": "z" * 64}, "sha256"),
        ({"models": "*/chat"}, "models"),
        ({"models": "chat"}, "models"),
        ({"models": "a/b/c"}, "models"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": "2027-01-31T00:00:00"}, "time zone"),
        ({"requestsPerMinute": "0"}, "requestsPerMinute"),
        ({"requestsPerMinute": "-1"}, "requestsPerMinute"),
        ({"tokensPerMinute": "many"}, "tokensPerMinute"),
        ({"priority": "11"}, "priority"),
    ],
)
def test_a_secret_that_is_no_key_says_which_entry_is_wrong(entries: dict[str, str], told: str) -> None:
    with pytest.raises(KeyInvalidError, match=told) as error:
        read_key(secret(**entries))
    assert SHA256 not in str(error.value)


@pytest.mark.parametrize("identity", ["", "A", "a_b", "-a", "a" * 41])
def test_an_id_is_a_dns_label(identity: str) -> None:
    with pytest.raises(KeyInvalidError, match="label"):
        read_key(secret(identity))


def test_a_new_key_opens_what_its_secret_says() -> None:
    text, stored = new_key("app")
    keys = Keys(lambda: 0.0)
    keys.put("uid", read_key(secret(sha256=stored, models="*/*")))

    assert (found := keys.caller(text.encode())) is not None
    assert found.id == "app"
    assert keys.caller(text.encode()[:-1]) is None
    assert keys.caller(text.encode().replace(b"app", b"web")) is None
    keys.remove("uid")
    assert keys.caller(text.encode()) is None


def test_a_key_expires() -> None:
    now = 99.0
    keys = Keys(lambda: now)
    keys.put("uid", ApiKey(id="app", digest=bytes.fromhex(SHA256), expires=100.0))
    assert keys.caller(b"mrg_app_s3cret") is not None
    now = 100.0
    assert keys.caller(b"mrg_app_s3cret") is None


def test_of_two_secrets_with_one_id_the_first_holds() -> None:
    keys = Keys(lambda: 0.0)
    keys.put("first", ApiKey(id="app", digest=bytes.fromhex(SHA256)))
    keys.put("second", ApiKey(id="app", digest=hashlib.sha256(b"other").digest(), everything=True))

    assert keys.caller(b"mrg_app_other") is None
    keys.remove("second")
    assert keys.caller(b"mrg_app_s3cret") is not None
