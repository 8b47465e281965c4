"""Reads the address of a model: `hf://OWNER/NAME@REVISION`, `https://…` or `s3://BUCKET/PREFIX`. Pure.

The API server has checked the same of an InferenceModel; this also runs outside Kubernetes. An address never holds a
secret: no user, no query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HF: Final = re.compile(rf"hf://({_NAME}/{_NAME})@([A-Za-z0-9][A-Za-z0-9._-]{{0,127}})")
_LABEL: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HTTPS: Final = re.compile(
    rf"https://(?P<host>({_LABEL}[.])+[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?)(?P<port>:[1-9][0-9]{{0,4}})?"
    r"(/[A-Za-z0-9_~+=,@-][A-Za-z0-9._~+=,@-]*)*/?"
)
_S3: Final = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9_][A-Za-z0-9._=+-]*)*)/?"
)
_LOOPBACK: Final = re.compile(r"https?://(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3})(:[0-9]{1,5})?")
MODEL_ENDINGS: Final = (".gguf", ".safetensors")


@dataclass(frozen=True)
class HubAddress:
    """A repository of the hub at a revision: a commit, or a branch or tag that is looked up once."""

    repository: str
    revision: str


@dataclass(frozen=True)
class WebAddress:
    """One file if `url` ends with its name; a folder if it ends with a slash."""

    url: str

    @property
    def is_folder(self) -> bool:
        """Whether it names a folder."""
        return self.url.endswith("/")


@dataclass(frozen=True)
class BucketAddress:
    """One object if `prefix` ends as a model file does; else all below it."""

    bucket: str
    prefix: str

    @property
    def is_folder(self) -> bool:
        """Whether it names a folder."""
        return not self.prefix.lower().endswith(MODEL_ENDINGS)


Address = HubAddress | WebAddress | BucketAddress


def parse(uri: str) -> Address:
    """Read an address; raise LoadFailure that says what form it must have."""
    if (found := _HF.fullmatch(uri)) and ".." not in uri:
        return HubAddress(found[1], found[2])
    if (found := _HTTPS.fullmatch(uri)) and uri.lower().endswith((*MODEL_ENDINGS, "/")) and _is_port(found["port"]):
        return WebAddress(uri)
    if (found := _S3.fullmatch(uri)) and ".." not in uri:
        return BucketAddress(found["bucket"], found["prefix"].strip("/"))
    raise LoadFailure(
        LoadError.INVALID_MODEL_CONFIG,
        f"{uri[:200]!r} is no address to fetch from: it must be hf://OWNER/NAME@REVISION, https://HOST/PATH.gguf (or "
        ".safetensors, or a folder that ends with / and a list of files), or s3://BUCKET/PREFIX",
    )


def _is_port(text: str | None) -> bool:
    return text is None or int(text.removeprefix(":")) <= 65535


def is_loopback(endpoint: str) -> bool:
    """Tell whether an endpoint is on this machine, which only tests have.

    >>> is_loopback("http://127.0.0.1:8080"), is_loopback("http://127.0.0.1.example"), is_loopback("https://hub.example")
    (True, False, False)
    """
    return _LOOPBACK.fullmatch(endpoint.rstrip("/")) is not None
