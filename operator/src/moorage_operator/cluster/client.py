"""The operator's requests to the API server, through the `kubernetes` package's DynamicClient.

This is the one place that calls it: what it raises becomes the classes of `errors`, and what it returns plain dicts.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient, Resource

from moorage_operator.cluster.errors import (
    BY_STATUS,
    ApiError,
    BrokenError,
    ThrottledError,
    UnavailableError,
)
from moorage_operator.cluster.kinds import FIELD_MANAGER, path_of

Object = dict[str, Any]

NOTHING: Final[Mapping[str, str]] = {}
PAGE: Final = 100
"""Objects of a list at a time: a decoded page is what makes the heap grow, and the heap does not shrink again."""
MOST_RETRY_AFTER: Final = 60.0
"""A server that asks for more seconds is not obeyed: it would take us away altogether, and /livez would end us."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
_APPLY: Final = "application/apply-patch+yaml"


class Kube:
    """Requests with our own credentials. Methods raise the classes of `errors`, and InvalidNameError."""

    def __init__(self, api: ApiClient) -> None:
        self._client = DynamicClient(api)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The live object."""
        return await self._request("get", path_of(resource, namespace, name))

    async def pages(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str] = NOTHING
    ) -> AsyncIterator[Object]:
        """All objects that match the `selectors` (query parameters), as lists of one resourceVersion of at most PAGE
        items."""
        token = ""
        while True:
            query = {"limit": str(PAGE), **selectors, **({"continue": token} if token else {})}
            page = await self._request("get", path_of(resource, namespace), query)
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def apply(
        self, resource: Resource, manifest: Object, *, force: bool, subresource: str | None = None
    ) -> Object:
        """Server-side apply of `manifest`; without `force`, another manager's field is a ConflictError."""
        metadata = manifest["metadata"]
        path = path_of(resource, metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._request("patch", path, query, body=manifest, content_type=_APPLY)

    async def create(self, resource: Resource, manifest: Object) -> Object:
        """Creates an object; ConflictError when the name is taken."""
        return await self._request("post", path_of(resource, manifest["metadata"]["namespace"]), body=manifest)

    async def replace(self, resource: Resource, manifest: Object) -> Object:
        """Replaces an object; ConflictError when it is not at the manifest's resourceVersion any more."""
        metadata = manifest["metadata"]
        return await self._request("put", path_of(resource, metadata["namespace"], metadata["name"]), body=manifest)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> Object:
        """Deletes the object of that uid, and in the background what it owns; ConflictError if it is another one."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        return await self._request("delete", path_of(resource, namespace, name), body=options)

    async def watch(
        self, resource: Resource, namespace: str, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[Object]:
        """The events of a watch as they come, until the API server ends it or is silent for so many seconds."""
        path = path_of(resource, namespace)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        response = await self._send("get", path, {"watch": "true", **query}, _request_timeout=timeout)
        try:
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield msgspec.json.decode(line)
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise BrokenError(f"WATCH {path}: {type(error).__name__}: {error}") from error
        finally:
            response.close()

    async def _request(self, method: str, path: str, query: Mapping[str, str] = NOTHING, **options: Any) -> Object:
        response = await self._send(method, path, query, **options)
        try:
            decoded: Object = msgspec.json.decode(await response.read())
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise BrokenError(f"{method.upper()} {path}: {type(error).__name__}: {error}") from error
        return decoded

    async def _send(self, method: str, path: str, query: Mapping[str, str], **options: Any) -> aiohttp.ClientResponse:
        """`options` are those of DynamicClient.request."""
        options = {"_request_timeout": _TIMEOUT, "content_type": "application/json", **options}
        try:
            response: aiohttp.ClientResponse = await self._client.request(
                method, path, query_params=list(query.items()), serialize=False, **options
            )
        except ApiException as refusal:
            raise _error(refusal) from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise BrokenError(f"{method.upper()} {path}: {type(error).__name__}: {error}") from error
        return response


def _error(refusal: ApiException) -> Exception:
    """Our class for what the API server answered: its own message, cut, and nothing of headers or bodies."""
    try:
        answer = msgspec.json.decode(refusal.body or b"")
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    except (msgspec.DecodeError, AttributeError, TypeError):
        reason, message = "", str(refusal.body or "")[:200]
    asked = (refusal.headers or {}).get("Retry-After", "")
    wait = min(float(asked), MOST_RETRY_AFTER) if asked.isdigit() else 0.0
    if refusal.status == 429:
        return ThrottledError(reason, message, wait or 1.0)
    if refusal.status >= 500:
        return UnavailableError(f"{refusal.status} {reason}: {message[:500]}", wait)
    return BY_STATUS.get(refusal.status, ApiError)(refusal.status, reason, message)
