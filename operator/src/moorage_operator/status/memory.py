"""The parts of a status about memory: the model's shape, the estimate, and whether that fits a GPU. Pure."""

from typing import Any

import msgspec

from moorage_common.estimate import context_of, gib
from moorage_operator.api.conditions import Reason
from moorage_operator.status.demand import LARGEST, gpu_memory_asked, needed, split, usable_share
from moorage_operator.status.view import ConditionValue, View

_TERMS = ("weightsBytes", "kvCacheBytes", "overheadBytes", "totalBytes")


def shape(view: View) -> dict[str, Any]:
    """The shape of the model by its files; kept while no pod runs, so that the estimate can be updated."""
    if view.shape is None:
        return {}
    known = msgspec.to_builtins(msgspec.structs.replace(view.shape, tensor_bytes={}))
    return {"source": view.model.spec.files, **known}


def estimate(view: View) -> dict[str, Any]:
    """What one replica needs, term by term; and, once an engine has loaded it, what that holds."""
    spec = view.model.spec
    found = needed(spec, view.shape) if view.shape else None
    if view.shape is None or found is None:
        return {}
    terms = dict(zip(_TERMS, (*found, found.total), strict=True))
    section: dict[str, Any] = {
        **terms,
        "contextLength": context_of(spec.context_length, view.shape.context_length),
        "requests": spec.concurrency,
    }
    measured = _measured(view, terms)
    if measured:
        section |= {"measuredBytes": measured, "error": round((found.total - measured) / measured, 3)}
    return section


def _measured(view: View, terms: dict[str, int]) -> int | None:
    reported = [facts.memory_bytes for pod, facts in view.engines if pod in view.current]
    held = next((size for size in reported if size is not None and 0 < size <= LARGEST), None)
    if held is not None:
        return held
    before = view.model.status.get("estimate") or {}
    # A measurement stays valid as long as the spec requests the same.
    return before.get("measuredBytes") if terms.items() <= before.items() else None


def fits_gpu(view: View) -> ConditionValue | None:
    """Whether a replica fits the memory of its GPUs, by the estimate; it never keeps a model from being tried."""
    spec = view.model.spec
    found = needed(spec, view.shape) if view.shape and spec.gpu.count else None
    memory = _gpu_memory(view) if found else None
    if found is None or memory is None:
        return None
    size, source = memory
    gpus, share = split(spec), usable_share(spec)
    each, room = -(-found.total // gpus), int(size * share)
    used = f", of which the engine uses {share:.0%}" if share < 1 else ""
    terms = f"weights {gib(found.weights)}, KV cache {gib(found.kv_cache)}, overhead {gib(found.overhead)}"
    over = f", on {gpus} GPUs" if gpus > 1 else ""
    text = f"Requires about {gib(each)} per GPU ({terms}{over}); {source} {gib(size)}{used}"
    if each <= room:
        return "True", Reason.FITS, text
    return (
        "False",
        Reason.INSUFFICIENT_GPU_MEMORY,
        f"{text}; lower contextLength or maxConcurrency, or use more or larger GPUs",
    )


def _gpu_memory(view: View) -> tuple[int, str] | None:
    """Bytes of one GPU that the model could get, and where that is known from."""
    gpu = view.model.spec.gpu
    asked = gpu_memory_asked(view.model.spec)
    if asked is not None:
        return asked, "gpu.memory is"
    by_count = view.seen.gpu_memory.get(gpu.resource_name, {})
    enough = [memory for count, memory in by_count.items() if count >= gpu.count]
    return (max(enough), f"the largest {gpu.resource_name} on a node with at least {gpu.count} has") if enough else None
