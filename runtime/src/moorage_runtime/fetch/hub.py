"""The hub: a repository at a commit, its tree with sizes and sums, and its answers in words.

https://huggingface.co/docs/hub/api; the codes in X-Error-Code are those that the hub's own client reads. A branch or
tag is looked up once, so that all files are of one commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urljoin

import msgspec

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.http import Asked, Network, Reply, same_origin
from moorage_runtime.fetch.origin import Listing
from moorage_runtime.fetch.patience import check_passing
from moorage_runtime.fetch.plan import MAX_LISTED, Digest, Remote
from moorage_runtime.fetch.secrets import Secrets
from moorage_runtime.fetch.source import HubAddress

ENDPOINT: Final = "https://huggingface.co"
_ANSWER_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of one answer; a page of the hub has 1000 entries of some 400 bytes."""
_LISTING_LIMIT: Final = 4 * _ANSWER_LIMIT
_MAX_PAGES: Final = 40
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_NEXT: Final = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _Lfs(msgspec.Struct):
    oid: str = ""
    size: int = -1


class _Entry(msgspec.Struct):
    type: str
    path: str
    size: int = -1
    oid: str = ""
    lfs: _Lfs | None = None


class _Info(msgspec.Struct):
    sha: str


class Hub:
    """One repository of the hub."""

    def __init__(self, address: HubAddress, secrets: Secrets, network: Network, endpoint: str = ENDPOINT) -> None:
        """Ask at `endpoint`, with the token if there is one."""
        token = secrets.get("HF_TOKEN")
        self.where = f"{address.repository} at revision {address.revision}"
        self._address = address
        self._secrets = secrets
        self._network = network
        self._endpoint = endpoint.rstrip("/")
        self._bearer = f"Bearer {token}" if token else ""
        self._commit = ""

    def list(self) -> Listing:
        """Look the revision up and list its tree."""
        self._commit = self._look_up()
        return Listing(tuple(self._tree(self._commit)), self._commit)

    def asked(self, remote: Remote) -> Asked:
        """Ask for a file at the commit."""
        path = f"{self._address.repository}/resolve/{self._commit}/{quote(remote.name)}"
        return Asked(url=f"{self._endpoint}/{path}", secret=self._bearer)

    def refusal(self, status: int, headers: Mapping[str, str], name: str) -> LoadFailure:
        """Say what an answer of the hub means."""
        code = headers.get("x-error-code", "")
        if status in (401, 403) or code == "GatedRepo":
            return LoadFailure(LoadError.DOWNLOAD_UNAUTHORIZED, self._no_right(status, code))
        if status == 404 or code == "RevisionNotFound":
            return LoadFailure(LoadError.MODEL_NOT_FOUND, self._not_there(code, name))
        return LoadFailure(LoadError.DOWNLOAD_FAILED, f"the hub answers {status} for {name or self.where}")

    def _no_right(self, status: int, code: str) -> str:
        repository, key = self._address.repository, self._secrets.place("HF_TOKEN")
        if code == "GatedRepo":
            how = f"the token in {key} has no access" if self._bearer else "no token is set"
            return (
                f"{repository} is gated, and {how}: ask for access on its page at the hub, then set {key} to a token "
                "of that account that may read gated repositories"
            )
        if self._bearer:
            return f"the hub answers {status} to the token in {key}: it is wrong, expired, or may not read {repository}"
        # Also of what does not exist: the hub does not tell strangers what is private.
        return (
            f"the hub shows {repository} to nobody without a token (it answers {status}): it is private, or does not "
            f"exist; check the name, and set {key}"
        )

    def _not_there(self, code: str, name: str) -> str:
        repository, revision = self._address.repository, self._address.revision
        if code == "RevisionNotFound":
            return f"{repository} has no revision {revision!r}"
        if name:
            return f"{repository} has no file {name} at revision {revision}"
        hint = "" if self._bearer else f", or it is private: then set {self._secrets.place('HF_TOKEN')}"
        return f"the hub has no repository {repository}, or no revision {revision!r} of it{hint}"

    def _look_up(self) -> str:
        revision = self._address.revision
        if _COMMIT.fullmatch(revision):
            return revision
        url = f"{self._endpoint}/api/models/{self._address.repository}/revision/{quote(revision, safe='')}"
        body, _ = self._json(url)
        commit: str = _decoded(body, _Info).sha
        if not _COMMIT.fullmatch(commit):
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"the hub names no commit for {self.where}")
        return commit

    def _tree(self, commit: str) -> Iterator[Remote]:
        url = f"{self._endpoint}/api/models/{self._address.repository}/tree/{commit}?recursive=true"
        count = size = 0
        for _ in range(_MAX_PAGES):
            body, headers = self._json(url)
            size += len(body)
            if size > _LISTING_LIMIT:
                raise self._too_much(f"a list of files of more than {_LISTING_LIMIT} bytes")
            for entry in _decoded(body, list[_Entry]):
                if entry.type == "file":
                    count += 1
                    if count > MAX_LISTED:
                        raise self._too_much(f"more than {MAX_LISTED} files")
                    yield _remote(entry)
            following = _NEXT.search(headers.get("link", ""))
            if not following:
                return
            url = urljoin(url, following[1])
            if not same_origin(url, self._endpoint):
                raise LoadFailure(LoadError.DOWNLOAD_FAILED, "the hub's list of files goes on at another host")
        raise self._too_much(f"a list of files of more than {_MAX_PAGES} pages")

    def _too_much(self, what: str) -> LoadFailure:
        return LoadFailure(LoadError.INVALID_MODEL_CONFIG, f"{self.where} has {what}, which is no model")

    def _json(self, url: str) -> tuple[bytes, Mapping[str, str]]:
        with self._network.get(Asked(url=url, secret=self._bearer)) as reply:
            self._check(reply)
            return reply.read(_ANSWER_LIMIT), reply.headers

    def _check(self, reply: Reply) -> None:
        check_passing(reply)
        if reply.status != 200:
            raise self.refusal(reply.status, reply.headers, "")


def _remote(entry: _Entry) -> Remote:
    lfs = entry.lfs
    if lfs and _SHA256.fullmatch(lfs.oid):
        size = lfs.size if lfs.size >= 0 else entry.size
        return Remote(name=entry.path, size=_size(size), digest=Digest("sha256", lfs.oid), version=lfs.oid)
    digest = Digest("git", entry.oid) if _COMMIT.fullmatch(entry.oid) else None
    return Remote(name=entry.path, size=_size(entry.size), digest=digest, version=entry.oid)


def _size(size: int) -> int | None:
    return size if size >= 0 else None


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, "the hub's answer cannot be read") from error
