"""The watch of the gateways' EndpointSlices, where it goes on and where it is refused."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from kubernetes.aio.dynamic import Resource

from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.endpoint_slices import follow
from moorage_operator.cluster.errors import ForbiddenError, UnavailableError
from moorage_operator.cluster.kinds import ENDPOINT_SLICES
from moorage_operator.scaling.gateways import Gateways
from moorage_operator.scaling.usage import Usage
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.support import Object
from tests.unit.operator.virtual_time import in_virtual_time, now


class RefusingKube(FakeKube):
    """Lists are answered, watches are not."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def watch(
        self, resource: Resource, namespace: str, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[Object]:
        """Nothing but the error."""
        raise self._error
        yield


@pytest.mark.parametrize("error", [ForbiddenError(403, "Forbidden", "no watch"), UnavailableError("503")])
@in_virtual_time
async def test_a_watch_that_is_refused_is_tried_ever_more_rarely_although_lists_are_answered(error: Exception) -> None:
    kube, usage = RefusingKube(error), Usage(now)
    watches = Watches([(ENDPOINT_SLICES, "moorage-system")], now)
    gateways = Gateways(usage, lambda _keys: None, "")
    following = asyncio.create_task(follow(kube, "moorage-system", "gateway", gateways, watches))
    await asyncio.sleep(60)
    following.cancel()
    assert len(kube.reads) < 40
