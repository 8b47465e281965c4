"""The reference for the operator: a minimal one on kopf, as kopf's documentation would have it.

Handlers of creation and update apply the same children as ours, through the `kubernetes` package; an event handler of
Deployments writes the model's status. No queue, drift, lease, health or truth about failures. It is run as a process:
`kopf run --module hack.bench.kopf_operator --all-namespaces --standalone` with KUBECONFIG and MOORAGE_IMAGES, and says
"ready" when kopf has started it.
"""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import kopf
import kubernetes

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired import desired
from moorage_operator.desired.config import DesiredConfig

CONFIG = DesiredConfig(json.loads(os.environ.get("MOORAGE_IMAGES", "{}")))
MODELS = ("moorage.dev", "v1alpha1", "inferencemodels")

Call = Callable[..., Any]


def calls(kind: str) -> tuple[Call, Call]:
    """How a kind is created and patched."""
    if kind == "Service":
        core = kubernetes.client.CoreV1Api()
        return core.create_namespaced_service, core.patch_namespaced_service
    if kind == "Deployment":
        apps = kubernetes.client.AppsV1Api()
        return apps.create_namespaced_deployment, apps.patch_namespaced_deployment
    policy = kubernetes.client.PolicyV1Api()
    return policy.create_namespaced_pod_disruption_budget, policy.patch_namespaced_pod_disruption_budget


@kopf.on.startup()
def started(**_: Any) -> None:
    """Say that handlers are called from now on."""
    print("ready", flush=True)


@kopf.on.create(*MODELS)
def create_children(body: kopf.Body, namespace: str | None, **_: Any) -> None:
    """A model is new."""
    for child in desired(InferenceModel.model_validate(dict(body)), CONFIG):
        create, _patch = calls(child["kind"])
        create(namespace, child)


@kopf.on.update(*MODELS)
def update_children(body: kopf.Body, namespace: str | None, name: str, **_: Any) -> None:
    """A model has another spec."""
    for child in desired(InferenceModel.model_validate(dict(body)), CONFIG):
        _create, patch = calls(child["kind"])
        patch(name, namespace, child)


@kopf.on.event("apps", "v1", "deployments", labels={MANAGED_BY_LABEL: MANAGED_BY})
def write_status(event: kopf.RawEvent, name: str, status: kopf.Status, memo: Any, **_: Any) -> None:
    """A Deployment has changed: the model is Ready while a replica of it is available."""
    ready = bool(status.get("availableReplicas"))
    if event["type"] == "DELETED" or memo.get("ready") is ready:
        return
    memo.ready = ready
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    verdict = {"status": "True", "reason": "Serving"} if ready else {"status": "False", "reason": "Starting"}
    condition = {"type": "Ready", "message": "", "lastTransitionTime": now, **verdict}
    told = {"phase": "Running" if ready else "Starting", "readyReplicas": int(ready), "conditions": [condition]}
    group, version, plural = MODELS
    api = kubernetes.client.CustomObjectsApi()
    namespace = event["object"]["metadata"]["namespace"]
    api.patch_namespaced_custom_object_status(group, version, namespace, plural, name, {"status": told})
