"""API keys of the gateway: made, listed, revoked. A key is a Secret that has its hash; the key itself is told once."""

import re
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from moorage_cli.output import CommandError, table
from moorage_common.kube.client import Kube
from moorage_common.kube.errors import ConflictError
from moorage_common.kube.resources import SECRETS
from moorage_gateway.keys import GENERATE, KEY_LABEL, ApiKey, KeyInvalidError, new_key, read_key

HEADINGS: Final = ("NAME", "SCOPES", "MODELS", "EXPIRES", "REQUESTS/MIN", "TOKENS/MIN", "PRIORITY", "STATE")

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a key is to be."""

    name: str
    models: Sequence[str] = ()
    scopes: Sequence[str] = ()
    expires: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    priority: int | None = None


def secret_of(wanted: Wanted, namespace: str, now: datetime) -> tuple[str, dict[str, Any]]:
    """The key for its holder, and the Secret that is stored; CommandError, in the gateway's own words."""
    key, digest = new_key(wanted.name)
    scopes = " ".join(wanted.scopes) or GENERATE
    if GENERATE in scopes.replace(",", " ").split() and not wanted.models:
        raise CommandError("--models is missing: namespace/name, namespace/* or */*, as often as wanted")
    entries = {
        "sha256": digest,
        "scopes": scopes,
        "models": " ".join(wanted.models),
        "expires": _time(wanted.expires, now) if wanted.expires is not None else None,
        "requestsPerMinute": wanted.requests_per_minute,
        "tokensPerMinute": wanted.tokens_per_minute,
        "priority": wanted.priority,
    }
    data = {name: b64encode(str(value).encode()).decode() for name, value in entries.items() if value not in (None, "")}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"key-{wanted.name}", "namespace": namespace, "labels": {KEY_LABEL: wanted.name}},
        "type": "Opaque",
        "data": data,
    }
    try:
        read_key(secret)
    except KeyInvalidError as error:
        raise CommandError(f"no key was made: {error}") from error
    return key, secret


async def create(kube: Kube, wanted: Wanted, namespace: str) -> None:
    """Make a key; print it, and nothing else, on stdout."""
    key, secret = secret_of(wanted, namespace, datetime.now(UTC))
    known = await _secrets(kube, namespace, f"{KEY_LABEL}={wanted.name}")
    try:
        if known:
            raise ConflictError(409, "AlreadyExists", "")
        await kube.create(SECRETS, secret)
    except ConflictError as error:
        raise CommandError(
            f"there is a key {wanted.name!r} in {namespace} already; "
            f"revoke it first (kubectl moorage key revoke {wanted.name}) or take another name"
        ) from error
    print(f"The Secret key-{wanted.name} in {namespace} has its hash; the key is not shown again:", file=sys.stderr)
    print(key)


async def show(kube: Kube, namespace: str) -> None:
    """List the keys; what they are made of is not shown, as nobody but their holders has it."""
    found = await _secrets(kube, namespace, KEY_LABEL)
    print(table([HEADINGS, *(_row(secret, datetime.now(UTC)) for secret in found)]))


async def revoke(kube: Kube, name: str, namespace: str) -> None:
    """Delete a key: gateways refuse it within moments."""
    known = await _secrets(kube, namespace, f"{KEY_LABEL}={name}")
    if not known:
        raise CommandError(f"there is no key {name!r} in {namespace}")
    for secret in known:
        await kube.delete(SECRETS, namespace, secret["metadata"]["name"])
    print(f"The key {name} is revoked.", file=sys.stderr)


def _row(secret: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    name = secret["metadata"]["labels"][KEY_LABEL]
    try:
        key = read_key(secret)
    except KeyInvalidError as error:
        return name, "", "", "", "", "", "", f"invalid: {error}"
    expires = datetime.fromtimestamp(key.expires, UTC) if key.expires is not None else None
    state = "expired" if expires is not None and expires <= now else "valid"
    limits = (key.requests_per_minute, key.tokens_per_minute)
    return (
        *(name, " ".join(sorted(key.scopes)), _models(key)),
        expires.strftime("%Y-%m-%dT%H:%M:%SZ") if expires is not None else "never",
        *("-" if limit is None else str(limit) for limit in limits),
        *(str(key.priority), state),
    )


def _models(key: ApiKey) -> str:
    named = [*(f"{namespace}/*" for namespace in key.namespaces), *map(str, key.models)]
    return " ".join(["*/*"] if key.everything else sorted(named)) or "-"


async def _secrets(kube: Kube, namespace: str, selector: str) -> list[dict[str, Any]]:
    pages = kube.pages(SECRETS, namespace, {"labelSelector": selector})
    found = [secret async for page in pages for secret in page["items"]]
    return sorted(found, key=lambda secret: str(secret["metadata"]["name"]))


def _time(text: str, now: datetime) -> str:
    """A time: as it is written, or so long from now."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return text
    return (now + timedelta(**{_UNITS[found[2]]: int(found[1])})).strftime("%Y-%m-%dT%H:%M:%SZ")
