"""What the operator watches: its own objects, the Events of preemption, and the nodes where it may see them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from moorage_common.kube.client import NOTHING
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
from moorage_common.kube.watch import WatchHealth
from moorage_operator.watch import EVERYWHERE, Scope, watch
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.support import Object
from tests.unit.operator.virtual_time import in_virtual_time, settle

MANAGED = {"labelSelector": "app.kubernetes.io/managed-by=moorage"}


class Asked(FakeKube):
    """Remembers with which selectors each kind was listed and watched."""

    def __init__(self) -> None:
        super().__init__()
        self.selectors: dict[tuple[Resource, str | None], list[Mapping[str, str]]] = {}

    async def pages(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str] = NOTHING
    ) -> AsyncIterator[Object]:
        """Nothing."""
        self.selectors.setdefault((resource, namespace), []).append(selectors)
        yield {"metadata": {"resourceVersion": "1"}, "items": []}

    async def watch(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str], version: str
    ) -> AsyncIterator[Object | None]:
        """Silence."""
        self.selectors.setdefault((resource, namespace), []).append(selectors)
        yield None
        await asyncio.Event().wait()


class Nobody:
    """Takes nothing in."""

    def event(self, resource: Resource, kind: str | None, obj: Object) -> None:
        """An event."""

    def listed(self, resource: Resource, namespace: str | None, found: Mapping[str, str], version: int) -> None:
        """A list."""


@pytest.mark.parametrize("namespaces", [EVERYWHERE, ("team-a", "team-b")])
@in_virtual_time
async def test_each_kind_is_listed_and_watched_with_its_own_selector(namespaces: tuple[str | None, ...]) -> None:
    scope = Scope(namespaces, gateway_service="gateways", gateway_namespace="moorage-system")
    kube, health = Asked(), WatchHealth(scope.watches())
    task = asyncio.create_task(watch(kube, scope, Nobody(), health))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    wanted: dict[Resource, Mapping[str, str]] = {
        INFERENCE_MODELS: {},
        **dict.fromkeys((DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, PODS), MANAGED),
        EVENTS: {"fieldSelector": "reason=Preempted"},
    }
    expected = {(resource, namespace): [wanted[resource]] * 2 for resource in wanted for namespace in namespaces}
    expected[ENDPOINT_SLICES, "moorage-system"] = [{"labelSelector": "kubernetes.io/service-name=gateways"}] * 2
    if namespaces == EVERYWHERE:
        expected[NODES, None] = [{}, {}]
    assert kube.selectors == expected
    assert health.missing() == []
