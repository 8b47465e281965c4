"""The requests to the API server: get, list, watch, create, replace, patch, delete, and the logs of pods."""

import copy
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import aiohttp
import msgspec

from moorage_gateway.kube.credentials import Connection
from moorage_gateway.kube.errors import (
    BY_STATUS,
    ApiError,
    BrokenError,
    ThrottledError,
    UnauthorizedError,
    UnavailableError,
)
from moorage_gateway.kube.resources import PODS, Resource

NOTHING: Final[Mapping[str, str]] = {}
STRICT: Final[Mapping[str, str]] = {"fieldValidation": "Strict"}
"""An unknown field is refused, not dropped."""
PAGE: Final = 100
"""Objects of a list at a time: a decoded page is what makes the heap grow, and the heap does not shrink again."""
LOGIN_SECONDS: Final = 300
"""A projected token is rotated by the kubelet long before it expires; reading it anew this often is enough."""
MOST_RETRY_AFTER: Final = 300.0
"""No server is obeyed that asks for more seconds: it would take us away altogether."""
RENEW_SECONDS: Final = 50
"""The API server ends a watch after this time, so that its renewal proves every so often that it is alive.

Bookmarks do not: they come once a minute, but none does while nothing has changed, and Events have none at all.
"""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
# A connection that is silent for longer than a watch lasts is dead.
_WATCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=70)
_LOG_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10)
_EVENT: Final = msgspec.json.Decoder(dict[str, Any])

Login = Callable[[], Connection]


class Kube:
    """One pooled connection to the API server. Methods raise the classes of `errors`.

    `name` is who we are to it: the user agent, and the manager of the fields that we patch.
    """

    def __init__(self, login: Login, name: str) -> None:
        self._login = login
        self._name = name
        self._connection = login()
        self._read_at = time.monotonic()
        self._acting: Mapping[str, str] | None = None
        self._session = aiohttp.ClientSession(
            # What is set for one caller must not come with the request of another.
            cookie_jar=aiohttp.DummyCookieJar(),
            # No limit: a watch holds its connection, and there may be one for each kind in many namespaces.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._connection.tls or True),
            timeout=_TIMEOUT,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    def acting(self, credentials: Mapping[str, str]) -> "Kube":
        """The same connections with the credentials of somebody else: headers, in place of ours. Only we are closed."""
        other = copy.copy(self)
        other._acting = dict(credentials)
        return other

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """The live object."""
        return await self._request("GET", resource.path(namespace, name))

    async def page(
        self,
        resource: Resource,
        namespace: str | None,
        selectors: Mapping[str, str] = NOTHING,
        *,
        limit: int = PAGE,
        token: str = "",
    ) -> dict[str, Any]:
        """A list of at most `limit` objects; `token` is what the page before gave as metadata.continue."""
        params = {"limit": str(limit), **selectors, **({"continue": token} if token else {})}
        return await self._request("GET", resource.path(namespace), params=params)

    async def pages(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str] = NOTHING
    ) -> AsyncIterator[dict[str, Any]]:
        """All objects that match the `selectors` (query parameters), as lists of one resourceVersion of at most PAGE
        items."""
        token = ""
        while True:
            page = await self.page(resource, namespace, selectors, token=token)
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def watch(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str], version: str
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The events since `version`, until the API server ends the watch; first None, when it has begun."""
        since = {"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(RENEW_SECONDS)}
        path = resource.path(namespace)
        url = self._connection.server.rstrip("/") + path
        params = {"watch": "true", **selectors, **since}
        try:
            async with self._session.get(
                url, params=params, headers=self._headers(), timeout=_WATCH_TIMEOUT
            ) as response:
                if response.status >= 400:
                    raise self._refused(response, await response.read())
                yield None
                rest = b""
                async for data in response.content.iter_any():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        yield _EVENT.decode(line)
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise BrokenError(f"WATCH {path}: {type(error).__name__}: {error}") from error

    async def create(
        self, resource: Resource, manifest: dict[str, Any], options: Mapping[str, str] = NOTHING
    ) -> dict[str, Any]:
        """Creates an object; ConflictError when the name is taken. A kind without namespaces needs no metadata.

        `options` of this and of other writes are query parameters, such as STRICT.
        """
        path = resource.path(manifest.get("metadata", {}).get("namespace"))
        return await self._request("POST", path, body=manifest, params=options)

    async def replace(
        self, resource: Resource, manifest: dict[str, Any], options: Mapping[str, str] = NOTHING
    ) -> dict[str, Any]:
        """Replaces an object; ConflictError when it is not at the manifest's resourceVersion any more."""
        metadata = manifest["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, body=manifest, params=options)

    async def merge(
        self, resource: Resource, namespace: str | None, name: str, patch: dict[str, Any]
    ) -> dict[str, Any]:
        """A JSON merge patch (RFC 7386): what `patch` has is set, a null removes."""
        path = resource.path(namespace, name)
        params = {"fieldManager": self._name, **STRICT}
        return await self._request(
            "PATCH", path, params=params, body=patch, content_type="application/merge-patch+json"
        )

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, version: str | None = None
    ) -> dict[str, Any]:
        """Deletes an object, and in the background what it owns; with `version` only as long as it is at that one."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if version is not None:
            options["preconditions"] = {"resourceVersion": version}
        return await self._request("DELETE", resource.path(namespace, name), body=options)

    async def version(self) -> str:
        """The version of the API server."""
        return str((await self._request("GET", "/version"))["gitVersion"])

    async def logs(self, namespace: str, pod: str, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The log of a pod as it comes; `options` are query parameters, with follow=true it ends with the container."""
        path = PODS.path(namespace, pod, "log")
        url = self._connection.server.rstrip("/") + path
        try:
            async with self._session.get(
                url, params=dict(options), headers=self._headers(), timeout=_LOG_TIMEOUT
            ) as response:
                if response.status >= 400:
                    raise self._refused(response, await response.read())
                async for data in response.content.iter_any():
                    yield data
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise BrokenError(f"GET {path}: {type(error).__name__}: {error}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = NOTHING,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        headers = {**self._headers(), "Content-Type": content_type}
        data = msgspec.json.encode(body) if body is not None else None
        url = self._connection.server.rstrip("/") + path
        try:
            async with self._session.request(method, url, params=dict(params), data=data, headers=headers) as response:
                content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise BrokenError(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status < 400:
            decoded: dict[str, Any] = msgspec.json.decode(content)
            return decoded
        raise self._refused(response, content)

    def _headers(self) -> dict[str, str]:
        if self._acting is not None:
            return {**self._acting, "User-Agent": self._name}
        if time.monotonic() - self._read_at > LOGIN_SECONDS:
            self._read_credentials()
        return {**self._connection.headers(), "User-Agent": self._name}

    def _refused(self, response: aiohttp.ClientResponse, content: bytes) -> Exception:
        refusal = _error(response.status, response.headers.get("Retry-After"), content)
        if isinstance(refusal, UnauthorizedError) and self._acting is None:
            self._read_credentials()
        return refusal

    def _read_credentials(self) -> None:
        # Only the token may change while we run; another server or authority needs new connections, that is a restart.
        self._connection = self._login()
        self._read_at = time.monotonic()


def _error(status: int, retry_after: str | None, content: bytes) -> Exception:
    try:
        answer = msgspec.json.decode(content)
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
        told = (answer.get("details") or {}).get("causes") or ()
        causes = tuple((str(cause.get("field", "")), str(cause.get("message", ""))) for cause in told)
    except (msgspec.DecodeError, AttributeError, TypeError):
        reason, message, causes = "", content[:200].decode("utf-8", "replace"), ()
    wait = min(float(retry_after), MOST_RETRY_AFTER) if retry_after and retry_after.isdigit() else 0.0
    if status == 429:
        return ThrottledError(reason, message, wait or 1.0)
    if status >= 500:
        return UnavailableError(f"{status} {reason}: {message[:500]}", wait)
    return BY_STATUS.get(status, ApiError)(status, reason, message, causes)
