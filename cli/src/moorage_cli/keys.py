"""API keys of the gateway: made, listed, revoked. A key is a Secret that has its hash; the key itself is told once."""

import re
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kubernetes.dynamic.exceptions import ConflictError

from moorage_cli.cluster import AS_SENT, NAME, Cluster
from moorage_cli.output import CommandError, table
from moorage_gateway.keys import GENERATE, KEY_LABEL, ApiKey, KeyInvalidError, new_key, read_key, valid_id

HEADINGS: Final = ("NAME", "SCOPES", "MODELS", "EXPIRES", "REQUESTS/MIN", "TOKENS/MIN", "PRIORITY", "STATE")

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
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
    if not valid_id(wanted.name):
        rule = 'must consist of lowercase letters, digits and "-", start and end with a letter or digit'
        raise CommandError(f'key "{wanted.name[:100]}": {rule}, at most 40 characters.')
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
        made = read_key(secret)
    except KeyInvalidError as error:
        raise CommandError(str(error)) from error
    if made.expires is not None and made.expires <= now.timestamp():
        raise CommandError(f"--expires {wanted.expires} is in the past: give a time to come, such as 90d")
    return key, secret


def create(cluster: Cluster, wanted: Wanted, namespace: str) -> None:
    """Make a key; print it, and nothing else, on stdout."""
    key, secret = secret_of(wanted, namespace, datetime.now(UTC))
    exists = CommandError(
        f"there is a key {wanted.name!r} in {namespace} already; "
        f"revoke it first (kubectl moorage key revoke {wanted.name}) or take another name"
    )
    if _secrets(cluster, namespace, f"{KEY_LABEL}={wanted.name}"):
        raise exists
    try:
        cluster.secrets.create(body=secret, field_manager=NAME, **AS_SENT)
    except ConflictError as error:
        raise exists from error
    print(f"The Secret key-{wanted.name} in {namespace} has its hash; the key is not shown again:", file=sys.stderr)
    print(key)


def show(cluster: Cluster, namespace: str) -> None:
    """List the keys; what they are made of is not shown, as nobody but their holders has it."""
    found = _secrets(cluster, namespace, KEY_LABEL)
    print(table([HEADINGS, *(_row(secret, datetime.now(UTC)) for secret in found)]))


def revoke(cluster: Cluster, name: str, namespace: str) -> None:
    """Delete a key: gateways refuse it within moments."""
    known = _secrets(cluster, namespace, f"{KEY_LABEL}={name}")
    if not known:
        raise CommandError(f"there is no key {name!r} in {namespace}")
    for secret in known:
        cluster.secrets.delete(name=secret["metadata"]["name"], namespace=namespace, **AS_SENT)
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


def _secrets(cluster: Cluster, namespace: str, selector: str) -> list[dict[str, Any]]:
    found = cluster.items(cluster.secrets, namespace, selector)
    return sorted(found, key=lambda secret: str(secret["metadata"]["name"]))


def _time(text: str, now: datetime) -> str:
    """A time: as it is written, a day's beginning, or so long from now."""
    if _DATE.fullmatch(text):
        return f"{text}T00:00:00Z"
    found = _DURATION.fullmatch(text)
    if found is None:
        return text
    return (now + timedelta(**{_UNITS[found[2]]: int(found[1])})).strftime("%Y-%m-%dT%H:%M:%SZ")
