"""Who asks, and the client of the API server that acts for them.

A token of Kubernetes is handed on as it is: the API server says whose it is and what they may. The holder of an API key
that may manage (the data plane has checked that) is impersonated as the user `moorage:key:ID`, group `moorage:keys`;
whether the gateway may do so, and what that user may, is RBAC again.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.credentials import Connection, CredentialsError
from moorage_gateway.kube.resources import SELF_ACCESS_REVIEWS, SELF_SUBJECT_REVIEWS
from moorage_gateway.manage.problems import Problem

KEY_HEADER: Final = "x-moorage-key"
"""From the data plane, and from nobody else: nobody else can open the socket."""

KEY_USER: Final = "moorage:key:"
KEY_GROUP: Final = "moorage:keys"
NAME_SECONDS: Final = 60.0
OWN_SECONDS: Final = 60.0
MOST_NAMES: Final = 1000


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request."""

    kube: Kube
    """Acts for them."""
    key: str
    """The ID of their API key, or empty."""
    cluster: "Cluster"
    token: str = ""

    async def name(self) -> str:
        """Their name as the API server knows it."""
        return f"{KEY_USER}{self.key}" if self.key else await self.cluster.name_of(self)

    def __repr__(self) -> str:
        """Not their token."""
        return f"Caller({self.key or 'token'})"


class Cluster:
    """The API server, and the namespaces that are served; None is all of them."""

    def __init__(self, kube: Kube, namespaces: tuple[str | None, ...], own: Callable[[], Connection]) -> None:
        """`kube` has no credential; `own` gives the gateway's, which serve to impersonate and nothing else."""
        self.namespaces = namespaces
        self._kube = kube
        self._own = own
        self._own_headers: tuple[dict[str, str], float] = ({}, 0.0)
        self._names: dict[bytes, tuple[str, float]] = {}

    @property
    def public(self) -> Kube:
        """Without any credential."""
        return self._kube

    def caller(self, request: Request) -> Caller:
        """Who sent `request`; Problem 401."""
        if key := request.headers.get(KEY_HEADER):
            impersonated = {"Impersonate-User": f"{KEY_USER}{key}", "Impersonate-Group": KEY_GROUP}
            return Caller(self._kube.acting({**self._credentials(), **impersonated}), key, self)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem(401, "No credential: send `Authorization: Bearer …` with a token of Kubernetes.", "no_token")
        token = token.strip()
        return Caller(self._kube.acting({"Authorization": f"Bearer {token}"}), "", self, token)

    async def name_of(self, caller: Caller) -> str:
        """Whose token it is; ApiError where it is nobody's."""
        digest = hashlib.sha256(caller.token.encode("latin-1", "replace")).digest()
        name, until = self._names.get(digest, ("", 0.0))
        if until > time.monotonic():
            return name
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        told = await caller.kube.create(SELF_SUBJECT_REVIEWS, review)
        name = str(told["status"]["userInfo"].get("username", ""))
        if len(self._names) >= MOST_NAMES:
            self._names.clear()
        self._names[digest] = (name, time.monotonic() + NAME_SECONDS)
        return name

    def served(self, namespace: str) -> str:
        """The namespace, if it is served; else Problem."""
        if None not in self.namespaces and namespace not in self.namespaces:
            names = ", ".join(str(name) for name in self.namespaces)
            text = f"The namespace {namespace[:100]!r} is not served here: {names} is."
            raise Problem(404, text, "namespace_not_served", fields=[("namespace", text)])
        return namespace

    def _credentials(self) -> dict[str, str]:
        headers, until = self._own_headers
        if until < time.monotonic():
            try:
                headers = self._own().headers()
            except (CredentialsError, OSError) as error:
                raise Problem(503, "The gateway has no credentials of its own now.", "no_credentials") from error
            self._own_headers = headers, time.monotonic() + OWN_SECONDS
        if not headers:
            raise Problem(503, "The gateway has no token of its own, so API keys cannot manage.", "no_credentials")
        return headers


def caller_of(request: Request) -> Caller:
    """Who sent it: a dependency of every route but the pages."""
    cluster: Cluster = request.app.state.cluster
    return cluster.caller(request)


Asking = Annotated[Caller, Depends(caller_of)]


async def allowed(caller: Caller, attributes: dict[str, str]) -> bool:
    """Whether the caller may, by a SelfSubjectAccessReview."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    told = await caller.kube.create(SELF_ACCESS_REVIEWS, review)
    return bool(told.get("status", {}).get("allowed"))
