"""What the operator watches: kinds, the namespaces in which it does, and which objects of each. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kubernetes.aio.dynamic import Resource

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL
from moorage_operator.cluster.kinds import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    INFERENCE_MODELS,
    NODES,
    PODS,
    SERVICES,
)
from moorage_operator.status.preemption import EVENT_REASON

Watched = tuple[Resource, str | None]
"""What one watch follows: a kind in one namespace, or with None in all of them."""

CHILDREN: Final = (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, PODS)
NAMESPACED: Final = (INFERENCE_MODELS, *CHILDREN, EVENTS)

OURS: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
SELECTORS: Final[Mapping[Resource, Mapping[str, str]]] = {
    **{kind: {"labelSelector": OURS} for kind in CHILDREN},
    EVENTS: {"fieldSelector": f"reason={EVENT_REASON}"},
}
"""Query parameters of the kinds of which not all objects are wanted."""


@dataclass(frozen=True)
class Scope:
    """The namespaces that are served; none named means all of them, and the nodes, too."""

    namespaces: tuple[str, ...] = ()

    @property
    def clusterwide(self) -> bool:
        """Whether all namespaces are served."""
        return not self.namespaces

    def watched(self) -> list[Watched]:
        """Kind by kind and namespace by namespace."""
        if self.clusterwide:
            return [(kind, None) for kind in (*NAMESPACED, NODES)]
        return [(kind, namespace) for kind in NAMESPACED for namespace in self.namespaces]
