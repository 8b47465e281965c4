"""Asks the API server whose a token is (TokenReview) and what they may do (SubjectAccessReview).

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication has the first,
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access the second.
"""

from typing import Any, Final

from moorage_gateway.callers import ReviewError, User
from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.errors import ApiError, UnavailableError
from moorage_gateway.kube.resources import INFERENCE_MODELS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS
from moorage_gateway.routing import ModelKey

SUBRESOURCE: Final = "generate"
"""Of InferenceModels: who may `create` it, may send requests to them."""


class KubeReviews:
    """The reviews of a real API server."""

    def __init__(self, kube: Kube, audience: str) -> None:
        """Take only tokens that were made for `audience`."""
        self._kube = kube
        self._audience = audience

    async def who(self, token: str) -> User | None:
        """Whose token it is; None where it is not valid, or is for others; ReviewError."""
        spec = {"token": token, "audiences": [self._audience]}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status = await self._status(TOKEN_REVIEWS, review)
        if not status.get("authenticated"):
            return None
        # An authenticator that knows no audiences answers without: its token is for the API server, not for us.
        if self._audience not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        return User(
            name=user.get("username", ""),
            uid=user.get("uid", ""),
            groups=tuple(user.get("groups") or ()),
            extra=tuple((name, tuple(values)) for name, values in (user.get("extra") or {}).items()),
        )

    async def may_generate(self, user: User, key: ModelKey) -> bool:
        """Whether that user may create the subresource of this InferenceModel; ReviewError.

        Empty names stand for all: a key without a name is of all models of its namespace.
        """
        attributes = {
            "group": INFERENCE_MODELS.group,
            "resource": INFERENCE_MODELS.plural,
            "subresource": SUBRESOURCE,
            "verb": "create",
            "namespace": key.namespace,
            "name": key.name,
        }
        return await self._allowed(user, {"resourceAttributes": attributes})

    async def may_get(self, user: User, path: str) -> bool:
        """Whether that user may `get` this non-resource URL; ReviewError."""
        return await self._allowed(user, {"nonResourceAttributes": {"path": path, "verb": "get"}})

    async def _allowed(self, user: User, asked: dict[str, Any]) -> bool:
        spec = {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {name: list(values) for name, values in user.extra},
            **asked,
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool((await self._status(SUBJECT_ACCESS_REVIEWS, review)).get("allowed"))

    async def _status(self, resource: Any, review: dict[str, Any]) -> dict[str, Any]:
        try:
            status: dict[str, Any] = (await self._kube.create(resource, review)).get("status") or {}
        except (ApiError, UnavailableError) as error:
            raise ReviewError(str(error)) from error
        return status
