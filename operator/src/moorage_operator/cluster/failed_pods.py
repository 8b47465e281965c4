"""Deletes pods in phase Failed: their ReplicaSet replaces them at once, but nothing else would delete them for long.

(The control plane's own garbage collector begins at 12,500 finished pods.) A node that refuses pods fails a new one
every few milliseconds.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from moorage_operator.api.key import Key
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ConflictError, ForbiddenError, NotFoundError
from moorage_operator.cluster.kinds import PODS
from moorage_operator.status.observe import PodState

log = logging.getLogger(__name__)

AT_ONCE: Final = 20
"""Pods that one reconcile deletes; the news of each brings the next."""


def to_delete(pods: Iterable[PodState], wanted: int) -> list[PodState]:
    """Which pods of a model are deleted: those that failed, but for the newest one until all `wanted` are ready.

    It may say why they are not.
    """
    alive = [pod for pod in pods if not pod.terminating]
    failed = sorted((pod for pod in alive if pod.failure), key=lambda pod: (pod.created, pod.name))
    ready = sum(pod.ready and not pod.finished for pod in alive)
    return failed[:-1] if ready < wanted else failed


async def delete_failed(kube: Kube, key: Key, pods: Sequence[PodState], wanted: int) -> None:
    """Deletes them. A right that is missing holds up nothing else."""
    for pod in to_delete(pods, wanted)[:AT_ONCE]:
        extra = {"model": "/".join(key), "pod": pod.name}
        try:
            await kube.delete(PODS, key.namespace, pod.name, uid=pod.uid)
        except (NotFoundError, ConflictError):
            continue  # gone, or another one by now
        except ForbiddenError as error:
            log.warning("a failed pod cannot be deleted", extra=extra | {"error": str(error)})
            return
        log.info("deleted a failed pod", extra=extra | {"why": pod.failure})
