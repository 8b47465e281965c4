"""API keys: what a Secret says of one, and who holds it. Only the SHA-256 of a key's secret part is stored.

A key is `mrg_ID_SECRET`. Its Secret has the label moorage.dev/api-key=ID and these entries, of which only the first has
to be there:

    sha256             64 hexadecimal digits: of SECRET, which has at least 128 random bits, so a slow hash adds nothing
    scopes             generate, manage or both: generate (send requests to the models) if left out, manage is the
                       management API, where RBAC says what the user moorage:key:ID may
    models             names `namespace/name`, `namespace/*` or `*/*`, between blanks or commas; without it, none
    expires            RFC 3339, such as 2027-01-31T00:00:00Z
    requestsPerMinute  a whole number; see `limits`
    tokensPerMinute    a whole number: of prompts and answers together
    priority           1 to 10, 5 if left out: who goes first when a model wakes
"""

import hashlib
import hmac
import re
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from moorage_common.labels import API_GROUP
from moorage_gateway.routing import ModelKey

KEY_LABEL: Final = f"{API_GROUP}/api-key"
"""On the Secret of every API key; the value is its ID."""

PREFIX: Final = b"mrg_"
KEY_CALLER: Final = "key"
"""Before the ID of a key, where callers are named; no user of Kubernetes should be called so."""
SECRET_BYTES: Final = 24
DEFAULT_PRIORITY: Final = 5
HIGHEST_PRIORITY: Final = 10
GENERATE: Final = "generate"
MANAGE: Final = "manage"
SCOPES: Final = (GENERATE, MANAGE)

_ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MODEL: Final = re.compile(r"(\*|[a-z0-9][a-z0-9.-]*)/(\*|[a-z0-9][a-z0-9.-]*)")
_NOBODY: Final = b"\0" * 32


class KeysUncheckedError(Exception):
    """No key can be checked now, as one that was revoked might still be among those that are known."""


class KeyInvalidError(Exception):
    """A Secret that is no key; the text says which entry is wrong, and never what a secret entry holds."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """One key, and what its holder may use."""

    id: str
    digest: bytes
    scopes: frozenset[str] = frozenset({GENERATE})
    models: frozenset[ModelKey] = frozenset()
    namespaces: frozenset[str] = frozenset()
    everything: bool = False
    expires: float | None = None
    """Seconds since 1970."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    priority: int = DEFAULT_PRIORITY
    limited: bool = field(init=False)
    """Whether there is any limit on requests or tokens."""

    def __post_init__(self) -> None:
        """Say once what is asked for every request."""
        limited = self.requests_per_minute is not None or self.tokens_per_minute is not None
        object.__setattr__(self, "limited", limited)

    @cached_property
    def name(self) -> str:
        """For metrics and logs."""
        return f"{KEY_CALLER}:{self.id}"

    def may_use(self, key: ModelKey) -> bool:
        """Whether the key is for requests to models, and its list has this one."""
        named = key in self.models or key.namespace in self.namespaces or self.everything
        return named and GENERATE in self.scopes


class Keys:
    """All keys, by their IDs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives the seconds since 1970."""
        self._clock = clock
        self.generation = 0
        """Changes with every change of a key: what was found out before it holds no more."""
        self._checked = True
        self._keys: dict[bytes, ApiKey] = {}
        self._of_secret: dict[str, bytes] = {}

    @property
    def checked(self) -> bool:
        """Whether what is known of the keys is true; while it may not be, none is taken."""
        return self._checked

    @checked.setter
    def checked(self, checked: bool) -> None:
        self.generation += checked != self._checked
        self._checked = checked

    def put(self, secret_uid: str, key: ApiKey) -> None:
        """A Secret was seen, or has changed. Of two with one ID the first holds."""
        self.remove(secret_uid)
        self.generation += 1
        identity = key.id.encode()
        if identity not in self._keys:
            self._keys[identity] = key
            self._of_secret[secret_uid] = identity

    def remove(self, secret_uid: str) -> None:
        """A Secret has gone, or is no key any more."""
        if (identity := self._of_secret.pop(secret_uid, None)) is not None:
            self.generation += 1
            del self._keys[identity]

    def may_be_caller(self, name: str) -> bool:
        """Whether this is the name of a key that there is, or of a caller without a key."""
        kind, _, identity = name.partition(":")
        return kind != KEY_CALLER or identity.encode() in self._keys

    def caller(self, token: bytes) -> ApiKey | None:
        """Who holds the key; None where it is not one. It takes as long where there is no such ID.

        KeysUncheckedError where that cannot be said.
        """
        if not self._checked:
            raise KeysUncheckedError
        _, _, rest = token.partition(PREFIX)
        identity, _, secret = rest.partition(b"_")
        key = self._keys.get(identity)
        same = hmac.compare_digest(hashlib.sha256(secret).digest(), key.digest if key is not None else _NOBODY)
        return key if key is not None and same and self.in_time(key) else None

    def in_time(self, key: ApiKey) -> bool:
        """Whether it has not expired yet."""
        return key.expires is None or key.expires > self._clock()


def valid_id(text: str) -> bool:
    """Whether a key may have this ID."""
    return _ID.fullmatch(text) is not None


def new_key(identity: str) -> tuple[str, str]:
    """Make a key; gives it whole, for its holder, and the SHA-256 that is stored."""
    secret = secrets.token_hex(SECRET_BYTES)
    return f"{PREFIX.decode()}{identity}_{secret}", hashlib.sha256(secret.encode()).hexdigest()


def read_key(secret: Mapping[str, Any]) -> ApiKey:
    """Read a Secret of Kubernetes; KeyInvalidError where it is no key."""
    identity = str((secret["metadata"].get("labels") or {}).get(KEY_LABEL, ""))
    if not valid_id(identity):
        raise KeyInvalidError(f"the label {KEY_LABEL} is {identity[:80]!r}: it has to be a DNS label of at most 40")
    entries = {name: _text(name, value) for name, value in (secret.get("data") or {}).items()}
    digest = entries.get("sha256", "").lower()
    if not _SHA256.fullmatch(digest):
        raise KeyInvalidError("sha256 is not 64 hexadecimal digits")
    models, namespaces, everything = _models(entries.get("models", ""))
    priority = _number(entries, "priority")
    if priority is not None and not 1 <= priority <= HIGHEST_PRIORITY:
        raise KeyInvalidError(f"priority is {priority}: it has to be 1 to {HIGHEST_PRIORITY}")
    return ApiKey(
        id=identity,
        digest=bytes.fromhex(digest),
        scopes=_scopes(entries.get("scopes")),
        models=models,
        namespaces=namespaces,
        everything=everything,
        expires=_time(entries.get("expires")),
        requests_per_minute=_number(entries, "requestsPerMinute"),
        tokens_per_minute=_number(entries, "tokensPerMinute"),
        priority=priority or DEFAULT_PRIORITY,
    )


def _text(name: str, value: str) -> str:
    try:
        return b64decode(value, validate=True).decode().strip()
    except (Base64Error, UnicodeDecodeError) as error:
        raise KeyInvalidError(f"{name[:80]!r} is not text") from error


def _models(text: str) -> tuple[frozenset[ModelKey], frozenset[str], bool]:
    models, namespaces, everything = set(), set(), False
    for word in text.replace(",", " ").split():
        found = _MODEL.fullmatch(word)
        if found is None or (found[1] == "*" and found[2] != "*"):
            raise KeyInvalidError(f"models has {word[:200]!r}: write namespace/name, namespace/* or */*")
        if found[1] == "*":
            everything = True
        elif found[2] == "*":
            namespaces.add(found[1])
        else:
            models.add(ModelKey(found[1], found[2]))
    return frozenset(models), frozenset(namespaces), everything


def _scopes(text: str | None) -> frozenset[str]:
    words = frozenset((GENERATE if text is None else text).replace(",", " ").split())
    if not words or not words <= set(SCOPES):
        wrong = min(words - set(SCOPES), default="")
        raise KeyInvalidError(f'invalid scope "{wrong[:100]}": must be "{GENERATE}" or "{MANAGE}"')
    return words


def _number(entries: Mapping[str, str], name: str) -> int | None:
    text = entries.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) == 0:
        raise KeyInvalidError(f"{name} is {text[:40]!r}: it has to be a whole number above 0")
    return int(text)


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise KeyInvalidError(f"expires is {text[:40]!r}: write it as 2027-01-31T00:00:00Z") from error
    if told.tzinfo is None:
        raise KeyInvalidError(f"expires is {text[:40]!r}, without a time zone: write it as 2027-01-31T00:00:00Z")
    return told.timestamp()
