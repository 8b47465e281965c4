"""Compares every field of a status with what is true: `falsehoods(world, memory)`. Pure.

It shares no code with the operator: it is written from docs/conditions.md, and where the docs leave a choice, every
true answer is accepted.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

from tests.truth import conditions, objects
from tests.truth.conditions import Case
from tests.truth.expected import Expected, OneOf, Such, exactly
from tests.truth.memory import Memory, Preemption
from tests.truth.objects import Object
from tests.truth.pods import NO_ROOM, REFUSED
from tests.truth.queue import QueueRange, queue_positions
from tests.truth.world import World

Named = Callable[[Preemption], str]
"""The preemptor of a preemption, as a status names it."""

KEPT: Final = 10
"""Preemptions that a status keeps."""

SAME: Final = timedelta(seconds=1)
"""A pod and the Event on it tell of one preemption, but not the same instant; a status keeps whole seconds."""


@dataclass(frozen=True)
class Falsehood:
    """A field of a model's status that says something else than is true."""

    model: str
    field: str
    says: str
    truth: str

    def __str__(self) -> str:
        return f"{self.model}: {self.field} says {self.says}; true is {self.truth}"


def falsehoods(
    world: World,
    memory: Memory,
    *,
    namespaces: Collection[str] | None = None,
    images: Collection[str] | None = None,
    autoscaled: bool = False,
) -> list[Falsehood]:
    """All false fields of the models of `namespaces` (None: of all); `autoscaled`: nodes of any size may be added."""
    attainable = (lambda _resource: inf) if autoscaled else memory.most
    positions = queue_positions(world, attainable)
    found: list[Falsehood] = []
    for model in world.models:
        if namespaces is None or model["metadata"]["namespace"] in namespaces:
            case = Case(world, model, memory.past(model), images, attainable)
            found += _judge(case, positions.get(objects.uid(model)), memory.preemptor)
    shared = _shared_positions(world, positions)
    return found + [lie for model, lie in shared if namespaces is None or model["metadata"]["namespace"] in namespaces]


def _shared_positions(world: World, positions: Mapping[str, QueueRange]) -> Iterator[tuple[Object, Falsehood]]:
    """Two models that began to wait in the same second have different positions."""
    first: dict[tuple[str, int], str] = {}
    for model in world.models:
        queued, position = positions.get(objects.uid(model)), _position(model)
        if queued is None or position is None:
            continue
        name = objects.name_of(model)
        other = first.setdefault((queued.waiter.resource, position), name)
        if other != name:
            yield model, Falsehood(name, "queue.position", str(position), f"not the position of {other}")


def _position(model: Object) -> Any:
    return ((model.get("status") or {}).get("queue") or {}).get("position")


def _judge(case: Case, queued: QueueRange | None, preemptor: Named) -> Iterator[Falsehood]:
    status: Object = case.model.get("status") or {}
    said, name = _said(status), objects.name_of(case.model)
    if not status:
        yield Falsehood(name, "status", "nothing", "that there is such a model")
        return
    for field, expected in _expected(case, status, queued, preemptor).items():
        if not expected.allows(said.get(field)):
            yield Falsehood(name, field, _text(said.get(field)), str(expected))
    failed, may_stay = case.world.failed_pods(case.model), int(len(case.ready) < case.wanted)
    if len(failed) > may_stay:
        yield Falsehood(name, "failed pods", ", ".join(failed), f"that at most {may_stay} is kept")
    unknown = {entry["type"] for entry in status.get("conditions") or ()} - {
        *conditions.JUDGED,
        *conditions.FOR_KSTATUS,
        *conditions.NOT_JUDGED,
    }
    for kind in sorted(unknown):
        yield Falsehood(name, f"conditions.{kind}", "something", "that docs/conditions.md has no such condition")


def _said(status: Object) -> dict[str, Any]:
    """The fields that are judged, by their path."""
    said: dict[str, Any] = {key: value for key, value in status.items() if not isinstance(value, dict | list)}
    for section in ("queue", "preemption"):
        said |= {f"{section}.{key}": value for key, value in (status.get(section) or {}).items()}
    for kind, entry in objects.as_map(status.get("conditions") or ()).items():
        said[f"conditions.{kind}"] = (entry.get("status"), entry.get("reason"))
        said[f"conditions.{kind}.observedGeneration"] = entry.get("observedGeneration")
        said[f"conditions.{kind}.message"] = entry.get("message")
    return said


def _expected(case: Case, status: Object, queued: QueueRange | None, preemptor: Named) -> dict[str, Expected]:
    model, generation = case.model, case.model["metadata"]["generation"]
    verdicts = conditions.expected(case)
    found: dict[str, Expected] = {
        "observedGeneration": exactly(generation),
        "replicas": exactly(len(case.staying)),
        "readyReplicas": exactly(len(case.ready)),
        "readyOfDesired": exactly(f"{len(case.ready)}/{case.wanted}"),
        "selector": _selector(case),
        "url": _url(case),
        "servedName": exactly(model["spec"].get("servedName") or model["metadata"]["name"]),
        "phase": _phase(status, verdicts["Ready"]),
        **_queue(queued),
        **_account(case, status, preemptor),
    }
    for kind, verdict in verdicts.items():
        found[f"conditions.{kind}"] = verdict
        found[f"conditions.{kind}.observedGeneration"] = exactly(generation)
        found[f"conditions.{kind}.message"] = _message(case, queued)
    said = objects.as_map(status.get("conditions") or ())
    progressing = said.get("Progressing", {})
    pair = (progressing.get("status"), progressing.get("reason"))
    for kind, verdict in conditions.for_kstatus(case, pair).items():
        found[f"conditions.{kind}"] = verdict
        if kind in said:
            found[f"conditions.{kind}.observedGeneration"] = exactly(generation)
            found[f"conditions.{kind}.message"] = _message(case, queued)
    return found


def _selector(case: Case) -> Expected:
    deployment = case.world.deployment(case.model)
    if deployment is None:
        return Such("any, there being no pods", bool)
    labels = deployment["spec"]["selector"]["matchLabels"]
    told = {f"{key}={value}" for key, value in labels.items()}
    return Such(f"{','.join(sorted(told))}", lambda said: set(str(said).split(",")) == told)


def _url(case: Case) -> Expected:
    service = case.world.child("Service", case.model)
    metadata = case.model["metadata"]
    if service is None:
        return Such("an address or none, there being no Service", lambda said: said is None or isinstance(said, str))
    if "Service" in case.world.strangers(case.model):
        return exactly(None)  # it would be the address of somebody else
    port = service["spec"]["ports"][0]["port"]
    address = f"http://{metadata['name']}.{metadata['namespace']}.svc{'' if port == 80 else f':{port}'}/v1"
    return OneOf((address, None) if case.blocked else (address,))


def _phase(status: Object, ready: OneOf) -> Expected:
    """The word for what Ready says, if that is true, or else for what it should say."""
    entry = objects.as_map(status.get("conditions") or ()).get("Ready", {})
    said = (entry.get("status"), entry.get("reason"))
    verdicts = [said] if ready.allows(said) else ready.values
    return OneOf(tuple(dict.fromkeys(_phase_of(*verdict) for verdict in verdicts)))  # type: ignore[misc]


def _phase_of(state: str, reason: str) -> str:
    if reason in ("Sleeping", "NoGateway"):
        return "Sleeping"
    if state == "True":
        return "Running"
    if reason in ("Stopped", "Stopping", "Starting"):
        return reason
    return "WaitingForResources" if reason in NO_ROOM | REFUSED else "Failed"


def _queue(queued: QueueRange | None) -> dict[str, Expected]:
    fields = ("position", "of", "summary", "waitingFor")
    if queued is None:
        return {f"queue.{field}": exactly(None) for field in fields}
    positions = range(queued.first, queued.last + 1)
    waiter = queued.waiter
    return {
        "queue.position": OneOf(tuple(positions)),
        "queue.of": exactly(queued.of),
        "queue.summary": OneOf(tuple(f"{position}/{queued.of}" for position in positions)),
        "queue.waitingFor": Such(
            f"{waiter.amount.normalize():f} {waiter.resource}",
            lambda said: (
                objects.quantity(str(said).split(" ")[0]) == waiter.amount
                and str(said).partition(" ")[2] == waiter.resource
            ),
        ),
    }


def _account(case: Case, status: Object, preemptor: Named) -> dict[str, Expected]:
    preemptions = sorted(case.past.preemptions.values(), key=lambda preemption: preemption.latest, reverse=True)
    account = ("preemption.count", "preemption.last", "preemption.history")
    if not preemptions:
        return {field: exactly(None) for field in (*account, "preemptedBy")}
    newest = [preemption for preemption in preemptions if preemptions[0].latest - preemption.latest <= SAME]
    short = objects.as_map(status.get("conditions") or ()).get("Preempted", {}).get("status") == "True"
    by = dict.fromkeys(preemptor(one) for one in newest)
    return {
        "preemptedBy": OneOf(tuple(name or None for name in by)) if short else exactly(None),
        "preemption.count": exactly(len(preemptions)),
        "preemption.last": Such(
            " or ".join(_describe(one, preemptor) for one in newest),
            lambda said: any(_tells_of(said, one, preemptor) for one in newest),
        ),
        "preemption.history": Such(
            "; ".join(_describe(one, preemptor) for one in preemptions[:KEPT]),
            lambda said: _is_history(said, preemptions, preemptor),
        ),
    }


def _describe(preemption: Preemption, preemptor: Named) -> str:
    by = preemptor(preemption) or "?"
    return f"{preemption.pod} on {preemption.node or '?'} at {preemption.latest:%H:%M:%S} by {by}"


def _tells_of(entry: Any, preemption: Preemption, preemptor: Named) -> bool:
    time = datetime.fromisoformat(entry["time"])
    same_time = any(abs(time - known) <= SAME for known in preemption.times)
    return bool(
        entry["pod"] == preemption.pod
        and entry["node"] == preemption.node
        and entry["by"] == preemptor(preemption)
        and same_time
    )


def _is_history(said: Any, preemptions: list[Preemption], preemptor: Named) -> bool:
    by_pod, pods = {preemption.pod: preemption for preemption in preemptions}, [entry["pod"] for entry in said]
    times = [entry["time"] for entry in said]
    oldest_kept = preemptions[min(KEPT, len(preemptions)) - 1].latest
    return (
        len(set(pods)) == len(pods) == min(KEPT, len(preemptions))
        and times == sorted(times, reverse=True)
        and all(_tells_of(entry, by_pod[entry["pod"]], preemptor) for entry in said)
        and all(by_pod[pod].latest >= oldest_kept - SAME for pod in pods)
    )


def _message(case: Case, queued: QueueRange | None) -> Expected:
    """Numbers in a message are read by people: they must be those of the fields."""
    answering = (len(case.ready), case.wanted)
    current = (min(case.wanted, len([pod for pod in case.ready if case.is_current(pod)])), case.wanted)
    nominated = {(pod.get("status") or {}).get("nominatedNodeName") for pod in case.staying}

    def holds(said: object) -> bool:
        counts = [tuple(map(int, found)) for found in re.findall(r"(\d+) of (\d+) replicas ready", str(said))]
        updated = [tuple(map(int, found)) for found in re.findall(r"(\d+) of (\d+) replicas updated", str(said))]
        positions = [tuple(map(int, found)) for found in re.findall(r"position (\d+) of (\d+)", str(said))]
        preempting = set(re.findall(r"preempting pods on node (\S+)", str(said)))
        right = queued is not None and all(
            of == queued.of and queued.first <= position <= queued.last for position, of in positions
        )
        numbers = all(found == answering for found in counts) and all(found == current for found in updated)
        nodes = _says_of_nodes(case, str(said))
        return bool(said and numbers and nodes and preempting <= nominated) and (right or not positions)

    return Such(f"{answering[0]} of {answering[1]} replicas ready; {queued or 'no queue position'}", holds)


def _says_of_nodes(case: Case, said: str) -> bool:
    """Whether what a message says of the nodes as they are now is true."""
    gpu = case.model["spec"].get("gpu") or {}
    most = case.world.most(str(gpu.get("resourceName", "nvidia.com/gpu")))
    told = re.findall(r"no node has more than (\d+)", said)
    none_now = "no node has so many now" in said
    return all(int(number) == most for number in told) and (not none_now or int(gpu.get("count") or 0) > most)


def _text(said: object) -> str:
    if said is None:
        return "nothing"
    return " ".join(map(str, said)) if isinstance(said, tuple) else str(said)
