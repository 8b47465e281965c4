"""Says whether a live object differs from what we want of it. Pure.

Two questions, because each alone misses something: has our intent changed since we last applied it (a hash in an
annotation, which also sees fields that we no longer want), and does the live object still have every value that we set?
Fields that we do not set belong to others and are left alone.
"""

import hashlib
import re
from decimal import Decimal
from typing import Any, Final

import msgspec

from moorage_common.labels import APPLIED_HASH_ANNOTATION

_MERGE_KEYS: Final = ("uid", "name", "containerPort", "port", "mountPath", "type")
"""The fields that tell the items of a list apart in the API types that we use."""

_SUFFIXES: Final = {
    "": Decimal(1),
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    **{suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}

_QUANTITY: Final = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([numkMGTPE]|[KMGTPE]i)|([eE][+-]?[0-9]+))?")


def digest(content: Any) -> str:
    """16 hexadecimal digits that name `content`."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:16]


def with_hash(manifest: dict[str, Any]) -> dict[str, Any]:
    """`manifest` with the annotation that names its content."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_HASH_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def drifted(wanted: Any, live: Any, *, quantities: bool = False) -> bool:
    """True when `live` lacks something of `wanted`. With `quantities`, 1000m and 1 are the same."""
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            # The API server drops an empty object.
            return bool(wanted) or live is not None
        return any(
            drifted(value, live.get(key), quantities=quantities or key == "resources") for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return not isinstance(live, list) or _list_drifted(wanted, live)
    if quantities and isinstance(wanted, str) and isinstance(live, str):
        return wanted != live and quantity(wanted) != quantity(live)
    return bool(wanted != live)


def _list_drifted(wanted: list[Any], live: list[Any]) -> bool:
    key = next(
        (k for k in _MERGE_KEYS if wanted and all(isinstance(item, dict) and k in item for item in wanted)), None
    )
    if key is None:
        return len(wanted) != len(live) or any(drifted(a, b) for a, b in zip(wanted, live, strict=True))
    found = {item.get(key): item for item in live if isinstance(item, dict)}
    return any(item[key] not in found or drifted(item, found[item[key]]) for item in wanted)


def quantity(text: str) -> Decimal:
    """The number that a Kubernetes quantity says; raises ValueError for text that is none."""
    if not (parts := _QUANTITY.fullmatch(text)):
        raise ValueError(f"not a quantity: {text!r}")
    number, suffix, exponent = parts.groups()
    return Decimal(f"{number}{exponent or ''}") * _SUFFIXES[suffix or ""]
