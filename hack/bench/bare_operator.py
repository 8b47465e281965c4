"""The reference for the operator: the least that brings InferenceModels to Deployments, Services and a status.

A bare asyncio list/watch loop without queue, drift, conditions, lease, health or errors that are told apart: it shows
what the API server, aiohttp and the shared builders of manifests cost alone. `python -m hack.bench.bare_operator` reads
KUBECONFIG and MOORAGE_IMAGES, says "ready" once it watches, and runs until it is killed.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from hack.bench._kube import MODELS, connect, list_and_watch
from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL
from moorage_operator.api.v1alpha1 import API_VERSION, KIND, InferenceModel
from moorage_operator.desired import desired
from moorage_operator.desired.config import DesiredConfig

APPLY = {"Content-Type": "application/apply-patch+yaml"}
PARAMS = {"fieldManager": "bare", "force": "true"}
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/",
    "Service": "/api/v1/namespaces/{}/services/",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/",
}
OURS = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


class BareOperator:
    """Applies children when a model comes, and writes its status when the readiness of its pod changes."""

    def __init__(self, http: aiohttp.ClientSession, config: DesiredConfig) -> None:
        self._http, self._config = http, config
        self._known: set[str] = set()
        self._ready: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def model(self, event: str, obj: dict[str, Any]) -> None:
        """A model was seen."""
        uid = obj["metadata"]["uid"]
        if event == "ADDED" and uid not in self._known:
            self._known.add(uid)
            self._start(self._children(InferenceModel.model_validate(obj)))

    def pod(self, event: str, obj: dict[str, Any]) -> None:
        """A pod was seen; one pod a model is all that this loop knows of."""
        metadata = obj["metadata"]
        conditions = obj["status"].get("conditions", ())
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if event != "DELETED" and self._ready.get(metadata["uid"], False) != ready:
            self._ready[metadata["uid"]] = ready
            self._start(self._status(metadata["namespace"], metadata["labels"][MODEL_LABEL], ready))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _children(self, model: InferenceModel) -> None:
        for child in desired(model, self._config):
            path = PATHS[child["kind"]].format(model.metadata.namespace) + model.metadata.name
            await self._apply(path, child)

    async def _status(self, namespace: str, name: str, ready: bool) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        verdict = {"status": "True", "reason": "Serving"} if ready else {"status": "False", "reason": "Starting"}
        condition = {"type": "Ready", "message": "", "lastTransitionTime": now, **verdict}
        status = {"phase": "Running" if ready else "Starting", "readyReplicas": int(ready), "conditions": [condition]}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "status": status}
        await self._apply(f"{MODELS.format(namespace)}/{name}/status", body)

    async def _apply(self, path: str, body: dict[str, Any]) -> None:
        async with self._http.patch(path, params=PARAMS, headers=APPLY, data=msgspec.json.encode(body)) as answer:
            await answer.read()


async def run(config: DesiredConfig) -> None:
    """Watch models and pods until killed."""
    async with connect(Path(os.environ["KUBECONFIG"])) as http:
        operator = BareOperator(http, config)
        kinds: list[tuple[str, str, Callable[[str, dict[str, Any]], None]]] = [
            ("/apis/moorage.dev/v1alpha1/inferencemodels", "", operator.model),
            ("/api/v1/pods", OURS, operator.pod),
        ]
        watches = [await list_and_watch(http, path, see, selector) for path, selector, see in kinds]
        print("ready", flush=True)
        await asyncio.gather(*watches)


if __name__ == "__main__":
    uvloop.run(run(DesiredConfig(json.loads(os.environ["MOORAGE_IMAGES"]))))
