"""Watches the EndpointSlices of the gateways' Service, in one namespace: kopf watches a kind in all namespaces or none.

It lists before each watch, so nothing that went meanwhile is missed; a new gateway is known within a second.
"""

import asyncio
import logging
from typing import Final

from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ApiError, ForbiddenError, NotFoundError, UnavailableError
from moorage_operator.cluster.kinds import ENDPOINT_SLICES
from moorage_operator.scaling.gateways import Gateways
from moorage_operator.workqueue import backoffs

log = logging.getLogger(__name__)

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""On every EndpointSlice: the Service that it is of."""
WATCH_SECONDS: Final = 50
SILENT_SECONDS: Final = 70.0


async def follow(kube: Kube, namespace: str, service: str, gateways: Gateways, watches: Watches) -> None:
    """Follows them until cancelled."""
    selector = {"labelSelector": f"{SERVICE_LABEL}={service}"}
    watched = (ENDPOINT_SLICES, namespace)
    pauses = backoffs()
    while True:
        try:
            version = await _list(kube, namespace, selector, gateways)
            watches.answered(watched)
            query = {**selector, "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
            async for event in kube.watch(ENDPOINT_SLICES, namespace, query, SILENT_SECONDS):
                if event["type"] == "ERROR":
                    break
                gateways.event(event["type"], event["object"])
            pauses = backoffs()
        except (ForbiddenError, NotFoundError) as error:
            watches.refused(watched, error.message)
        except (ApiError, UnavailableError) as error:
            log.info("the gateways' EndpointSlices cannot be watched now", extra={"error": str(error)})
            await asyncio.sleep(error.retry_after)
        await asyncio.sleep(next(pauses))


async def _list(kube: Kube, namespace: str, selector: dict[str, str], gateways: Gateways) -> str:
    uids, version = set(), ""
    async for page in kube.pages(ENDPOINT_SLICES, namespace, selector):
        version = page["metadata"]["resourceVersion"]
        for found in page["items"]:
            uids.add(found["metadata"]["uid"])
            gateways.event(None, found)
    gateways.listed(uids)
    return version
