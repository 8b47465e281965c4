"""What the operator watches, and which of it: the watching itself is `moorage_common.kube.watch`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from moorage_common.kube.client import Kube
from moorage_common.kube.resources import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    ENDPOINT_SLICES,
    EVENTS,
    INFERENCE_MODELS,
    NODES,
    PODS,
    SERVICES,
    Resource,
)
from moorage_common.kube.watch import Sink, Watched, WatchHealth, watch_all
from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL
from moorage_operator.status.preemption import EVENT_REASON

CHILDREN: Final = (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, PODS)
WATCHED: Final = (INFERENCE_MODELS, *CHILDREN, EVENTS)
EVERYWHERE: Final = (None,)
"""The namespaces of an operator that serves all of them; it sees the nodes too."""

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""On every EndpointSlice: the Service that it is of."""

OURS: Final = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
SELECTORS: Final[Mapping[Resource, Mapping[str, str]]] = {
    **dict.fromkeys(CHILDREN, OURS),
    EVENTS: {"fieldSelector": f"reason={EVENT_REASON}"},
}


@dataclass(frozen=True)
class Scope:
    """What is watched: the namespaces that are served, and the gateways (name of their Service, its namespace)."""

    namespaces: tuple[str | None, ...] = EVERYWHERE
    gateway_service: str = ""
    gateway_namespace: str = ""

    def watches(self) -> list[Watched]:
        """Kind by kind and namespace by namespace."""
        nodes: list[Watched] = [(NODES, None)] if self.namespaces == EVERYWHERE else []
        gateways: list[Watched] = [(ENDPOINT_SLICES, self.gateway_namespace)] if self.gateway_service else []
        return [(resource, namespace) for resource in WATCHED for namespace in self.namespaces] + nodes + gateways

    def selectors(self) -> Mapping[Resource, Mapping[str, str]]:
        """Of the kinds of which not all is wanted."""
        return {**SELECTORS, ENDPOINT_SLICES: {"labelSelector": f"{SERVICE_LABEL}={self.gateway_service}"}}


async def watch(kube: Kube, scope: Scope, sink: Sink, health: WatchHealth) -> None:
    """Watches everything until cancelled."""
    await watch_all(kube, scope.watches(), sink, health, scope.selectors())
