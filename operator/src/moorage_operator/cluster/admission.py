"""Names the rules that decide whether pods may be made in a namespace, so that a change of them can be seen.

The ReplicaSet controller tries again ever more rarely, up to every 17 minutes (1000 s in client-go's rate limiter); a
model whose quota has been raised must not wait for that. Whenever the rules, or what is used of a quota, have changed,
the Deployment gets their name as an annotation; its controller hands it on to the ReplicaSet, which is tried at once.
"""

from contextlib import suppress
from typing import Any, Final

from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ForbiddenError
from moorage_operator.cluster.kinds import LIMIT_RANGES, NAMESPACES, RESOURCE_QUOTAS
from moorage_operator.desired.drift import digest

_POD_SECURITY: Final = "pod-security.kubernetes.io/"


async def rules_of(kube: Kube, namespace: str) -> str:
    """A name for the quotas (and what is used of them), LimitRanges and Pod Security labels of `namespace`.

    Rules that the operator may not read have no part in it. Raises what `Kube` does.
    """
    found: list[Any] = []
    for resource in (RESOURCE_QUOTAS, LIMIT_RANGES):
        try:
            async for page in kube.pages(resource, namespace):
                found += [[obj["spec"], obj.get("status")] for obj in page["items"]]
        except ForbiddenError:
            continue
    with suppress(ForbiddenError):
        labels = (await kube.get(NAMESPACES, None, namespace))["metadata"].get("labels") or {}
        found.append({name: value for name, value in labels.items() if name.startswith(_POD_SECURITY)})
    return digest(found)
