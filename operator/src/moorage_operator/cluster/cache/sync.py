"""What has been listed and is followed since: before that, nothing may be decided about a namespace. Pure."""

from typing import Final

from moorage_operator.cluster.cache.scope import Scope, Watched
from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.kinds import DEPLOYMENTS, INFERENCE_MODELS, PODS

REQUIRED: Final = (INFERENCE_MODELS, DEPLOYMENTS, PODS)
"""What a status is made of. Without the other kinds it says less, or that we lack a right, but nothing wrong."""


class Sync:
    """The lists that are still missing, at the start or because the API server refuses them."""

    def __init__(self, scope: Scope, watches: Watches) -> None:
        self._watches = watches
        self._missing = set(scope.watched())

    def listed(self, watched: Watched) -> bool:
        """A list is complete; returns whether it was missing."""
        missing = watched in self._missing
        self._missing.discard(watched)
        return missing

    def lost(self, watched: Watched) -> None:
        """It is not followed any more."""
        self._missing.add(watched)

    def has(self, namespace: str) -> bool:
        """Whether all that decides about models of a namespace is known."""
        return not any(kind in REQUIRED and where in (None, namespace) for kind, where in self._missing)

    @property
    def begun(self) -> bool:
        """Whether all is known that can be: what is refused is not waited for."""
        return all(self._watches.is_refused(watched) for watched in self._missing)
