"""What kopf calls. Begin to read here: an event goes to `operator.Operator`, which puts the key of its model into a
queue; a worker takes it out and calls `reconcile.Reconciler`.

`python -m moorage_operator` runs it; for development, so does `kopf run -m moorage_operator.handlers -A`.
"""

from typing import Any

import kopf

from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.connection import CredentialsError, connect
from moorage_operator.cluster.kinds import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    INFERENCE_MODELS,
    NODES,
    PODS,
    SERVICES,
)
from moorage_operator.handlers.framework import configure
from moorage_operator.handlers.requests import ListsAndWatches, session
from moorage_operator.operator import Operator
from moorage_operator.settings import Settings


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Begins all that does not depend on kopf: workers, the Lease, readiness and metrics."""
    configure(settings)
    try:
        memo.api = memo.get("api") or await connect()
    except CredentialsError as error:
        raise kopf.PermanentError(str(error)) from error
    memo.operator = Operator(Settings(), Kube(memo.api))
    memo.lists = ListsAndWatches(memo.operator.scope.watched(), memo.operator.watches, memo.operator)
    if memo.operator.scope.clusterwide:
        kopf.on.event(NODES.group, NODES.api_version, NODES.name)(node)
    await memo.operator.start()


@kopf.on.login()
async def login(memo: kopf.Memo, **_: Any) -> kopf.AiohttpSession:
    """The session that kopf lists and watches with."""
    return session(memo.api, memo.lists)


@kopf.on.event(INFERENCE_MODELS.group, INFERENCE_MODELS.api_version, INFERENCE_MODELS.name)
async def inference_model(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """An InferenceModel: reconcile it."""
    memo.operator.event(INFERENCE_MODELS, event["type"], event["object"])


@kopf.on.event(DEPLOYMENTS.group, DEPLOYMENTS.api_version, DEPLOYMENTS.name)
async def deployment(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """A child: reconcile the model that it belongs to."""
    memo.operator.event(DEPLOYMENTS, event["type"], event["object"])


@kopf.on.event(SERVICES.group, SERVICES.api_version, SERVICES.name)
async def service(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """The same."""
    memo.operator.event(SERVICES, event["type"], event["object"])


@kopf.on.event(DISRUPTION_BUDGETS.group, DISRUPTION_BUDGETS.api_version, DISRUPTION_BUDGETS.name)
async def disruption_budget(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """The same."""
    memo.operator.event(DISRUPTION_BUDGETS, event["type"], event["object"])


@kopf.on.event(PODS.group, PODS.api_version, PODS.name)
async def pod(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """A pod of a model: its status says what keeps the model from running."""
    memo.operator.event(PODS, event["type"], event["object"])


@kopf.on.event(EVENTS.group, EVENTS.api_version, EVENTS.name)
async def preemption_event(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """The scheduler's Event on a pod that was preempted: it names the preemptor."""
    memo.operator.event(EVENTS, event["type"], event["object"])


async def node(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """A node: what it has decides whether a model can ever be scheduled. Registered if all of the cluster is served."""
    memo.operator.event(NODES, event["type"], event["object"])


@kopf.on.probe(id="silent_seconds")
async def watches_are_answered(memo: kopf.Memo, **_: Any) -> float:
    """Alive: no list or watch has been without any answer for too long."""
    if reasons := memo.operator.health.not_alive():
        raise kopf.PermanentError("; ".join(reasons))
    return float(memo.operator.watches.silent_seconds())


@kopf.on.probe(id="jobs")
async def jobs_are_running(memo: kopf.Memo, **_: Any) -> int:
    """Alive: no background task has ended."""
    if ended := memo.operator.ended_jobs():
        raise kopf.PermanentError("; ".join(ended))
    return len(memo.operator.jobs)


@kopf.on.probe(id="leading")
async def is_leading(memo: kopf.Memo, **_: Any) -> bool:
    """For information: whether this replica is the one that writes."""
    return bool(memo.operator.elector.leading)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Ends the background tasks; gives the Lease up, unless the process is about to restart in place."""
    asked_to = memo.get("stop")
    await memo.operator.stop(release=asked_to is None or asked_to.is_set())
    await memo.api.close()
    if cleaned := memo.get("cleaned"):
        cleaned.set()
