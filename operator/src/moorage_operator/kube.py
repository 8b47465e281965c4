"""Talks to the API server: get, list and server-side apply, for the few kinds that the operator knows.

The `kubernetes` package does the same and was measured first: beside kopf it costs 22 MB and 0.4 s at start, a
quarter of what the whole operator may have, for a dozen lines of request. Credentials are kopf's business
(`kopf.login_with_*`), so both clients read the same ones.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import kopf
import msgspec

from moorage_operator.errors import BY_STATUS, ApiError, ThrottledError, UnauthorizedError, UnavailableError

FIELD_MANAGER: Final = "moorage-operator"
PAGE: Final = 100
"""Objects of a list at a time: a decoded page is what makes the heap grow, and the heap does not shrink again."""
LOGIN_SECONDS: Final = 300
"""A projected token is rotated by the kubelet long before it expires; reading it anew this often is enough."""
MOST_RETRY_AFTER: Final = 300.0
"""No server is obeyed that asks for more seconds: it would take a whole operator away."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)


@dataclass(frozen=True)
class Resource:
    """A kind in the API."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The request path; a namespace of None means all of them."""
        parts = ["api" if not self.group else f"apis/{self.group}", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


INFERENCE_MODELS: Final = Resource("moorage.dev", "v1alpha1", "inferencemodels", "InferenceModel")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
SERVICES: Final = Resource("", "v1", "services", "Service")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
PODS: Final = Resource("", "v1", "pods", "Pod")
DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
EVENTS: Final = Resource("", "v1", "events", "Event")
NODES: Final = Resource("", "v1", "nodes", "Node")
RESOURCE_QUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES: Final = Resource("", "v1", "limitranges", "LimitRange")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
BY_KIND: Final = {
    resource.kind: resource
    for resource in (INFERENCE_MODELS, DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, PODS, EVENTS, LEASES)
}

Login = Callable[[], kopf.ConnectionInfo]


class Kube:
    """One pooled connection to the API server. Methods raise the classes of `errors`."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._connection = login()
        self._read_at = time.monotonic()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64, ssl=self._connection.as_ssl_context()), timeout=_TIMEOUT
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """The live object."""
        return await self._request("GET", resource.path(namespace, name))

    async def pages(
        self, resource: Resource, namespace: str | None, selector: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """All objects that match the label `selector`, as lists of one resourceVersion with at most PAGE items."""
        token = ""
        while True:
            params = {"limit": str(PAGE), "labelSelector": selector, "continue": token}
            page = await self._request("GET", resource.path(namespace), params={k: v for k, v in params.items() if v})
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def apply(self, manifest: dict[str, Any], *, force: bool, subresource: str | None = None) -> dict[str, Any]:
        """Server-side apply of `manifest`; without `force`, another manager's field is a ConflictError."""
        metadata = manifest["metadata"]
        path = BY_KIND[manifest["kind"]].path(metadata["namespace"], metadata["name"], subresource)
        params = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._request(
            "PATCH", path, params=params, body=manifest, content_type="application/apply-patch+yaml"
        )

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Creates an object; ConflictError when the name is taken."""
        path = BY_KIND[manifest["kind"]].path(manifest["metadata"]["namespace"])
        return await self._request("POST", path, body=manifest)

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Replaces an object; ConflictError when it is not at the manifest's resourceVersion any more."""
        metadata = manifest["metadata"]
        path = BY_KIND[manifest["kind"]].path(metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, body=manifest)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        if time.monotonic() - self._read_at > LOGIN_SECONDS:
            self._read_credentials()
        headers = {**self._connection.as_http_headers(), "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        data = msgspec.json.encode(body) if body is not None else None
        url = self._connection.server.rstrip("/") + path
        try:
            async with self._session.request(method, url, params=params, data=data, headers=headers) as response:
                content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status < 400:
            decoded: dict[str, Any] = msgspec.json.decode(content)
            return decoded
        refusal = _error(response.status, response.headers.get("Retry-After"), content)
        if isinstance(refusal, UnauthorizedError):
            self._read_credentials()
        raise refusal

    def _read_credentials(self) -> None:
        # Only the token may change while we run; another server or authority needs new connections, that is a restart.
        self._connection = self._login()
        self._read_at = time.monotonic()


def _error(status: int, retry_after: str | None, content: bytes) -> Exception:
    try:
        answer = msgspec.json.decode(content)
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    except (msgspec.DecodeError, AttributeError):
        reason, message = "", content[:200].decode("utf-8", "replace")
    wait = min(float(retry_after), MOST_RETRY_AFTER) if retry_after and retry_after.isdigit() else 0.0
    if status == 429:
        return ThrottledError(reason, message, wait or 1.0)
    if status >= 500:
        return UnavailableError(f"{status} {reason}: {message[:500]}", wait)
    return BY_STATUS.get(status, ApiError)(status, reason, message)


async def wait_for_crd(kube: Kube, namespace: str | None, warn: Callable[[str], None]) -> None:
    """Returns once InferenceModels can be listed; says every 10 s what is in the way."""
    while True:
        try:
            async for _ in kube.pages(INFERENCE_MODELS, namespace):
                break
        except (ApiError, UnavailableError) as error:
            warn(f"cannot list inferencemodels.moorage.dev yet: {error}")
            await asyncio.sleep(max(error.retry_after, 1 if isinstance(error, UnavailableError) else 10))
        else:
            return
