"""The system as the caller may see it: what they may not is named, and the rest is told."""

from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final, NamedTuple, TypeVar

from fastapi import Response

from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.errors import ForbiddenError, NotFoundError
from moorage_gateway.kube.resources import INFERENCE_MODELS, NODES, PODS, Resource
from moorage_gateway.manage.answers import model_told, told
from moorage_gateway.manage.callers import Asking, Caller
from moorage_gateway.manage.gpus import held, nodes_told, totals_told
from moorage_gateway.manage.routing import router

VERSION: Final = version("moorage-gateway")

Kept = TypeVar("Kept")

routes = router()


class Seen:
    """Collects what the caller may see, and what they may not."""

    def __init__(self, kube: Kube) -> None:
        """Ask with `kube`."""
        self._kube = kube
        self.refused: list[dict[str, str]] = []

    async def all_of(
        self, resource: Resource, namespace: str | None, keep: Callable[[dict[str, Any]], Kept | None]
    ) -> list[Kept] | None:
        """What `keep` makes of all objects of a kind, but for its Nones; None where they cannot be listed."""
        found: list[Kept] = []
        try:
            async for page in self._kube.pages(resource, namespace):
                found += [kept for obj in page["items"] if (kept := keep(obj)) is not None]
        except (ForbiddenError, NotFoundError) as error:
            self.refused.append({"what": resource.path(namespace), "message": error.message})
            return None
        return found


class _Model(NamedTuple):
    id: str
    phase: str
    ready: bool
    queue: dict[str, Any]


def _model(obj: dict[str, Any]) -> _Model:
    short = model_told(obj)
    return _Model(short["id"], short["phase"], short["ready"], (obj.get("status") or {}).get("queue") or {})


async def _models(caller: Caller, seen: Seen) -> list[_Model] | None:
    found = [await seen.all_of(INFERENCE_MODELS, namespace, _model) for namespace in caller.cluster.namespaces]
    known = [models for models in found if models is not None]
    return [model for models in known for model in models] if known else None


def _node(obj: dict[str, Any]) -> dict[str, Any]:
    """A node without the long list of its images."""
    status = obj.get("status") or {}
    return {
        **obj,
        "status": {name: status[name] for name in ("capacity", "allocatable", "conditions") if name in status},
    }


@routes.get("/api/system/status", summary="The system in short", tags=["system"])
async def system_status(caller: Asking) -> Response:
    """Versions, and how many models there are by phase; `refused` says what the caller may not see of it."""
    seen = Seen(caller.kube)
    server = await caller.kube.version()
    models = await _models(caller, seen)
    counted = {
        "total": len(models or ()),
        "ready": sum(model.ready for model in models or ()),
        "phases": dict(sorted(Counter(model.phase for model in models or ()).items())),
    }
    content = {
        "version": VERSION,
        "kubernetes": {"version": server},
        "namespaces": [namespace for namespace in caller.cluster.namespaces if namespace] or None,
        "models": counted if models is not None else None,
        "refused": seen.refused,
    }
    return told(content)


@routes.get("/api/system/gpu", summary="GPUs, and who has them", tags=["system"])
async def system_gpu(caller: Asking) -> Response:
    """Nodes by what device plugins offer: capacity, what can be given, what is used and by whom; and models that wait.

    It takes the rights to list nodes and pods; what is null the caller may not see, and `refused` says why.
    """
    seen = Seen(caller.kube)
    nodes, pods = await seen.all_of(NODES, None, _node), await seen.all_of(PODS, None, held)
    models = await _models(caller, seen)
    told_nodes = nodes_told(nodes, pods) if nodes is not None else None
    waiting = sorted(
        ({"id": model.id, **model.queue} for model in models or () if model.queue),
        key=lambda entry: (entry.get("waitingFor", ""), entry.get("position", 0)),
    )
    content = {
        "resources": totals_told(told_nodes) if told_nodes is not None else None,
        "nodes": told_nodes,
        "waiting": waiting if models is not None else None,
        "refused": seen.refused,
    }
    return told(content)
