"""A made-up cluster for tests of the truth: objects as the API server hands them out, and statuses that are true."""

import itertools
from collections import defaultdict
from typing import Any

from tests.truth.judge import Falsehood, falsehoods
from tests.truth.memory import Memory, asked
from tests.truth.objects import Object
from tests.truth.world import World

NAMESPACE = "team-a"
GPU = "nvidia.com/gpu"
NO_GPU = f"0/1 nodes are available: 1 Insufficient {GPU}. preemption: 0/1 nodes are available: 1 No victims found."
AT = "2026-01-02T03:04:{:02d}Z"
VERDICT = tuple[str, str]


class Scene:
    """Objects by kind, made one from another; `memory` is what the checker has seen of them."""

    def __init__(self) -> None:
        self.found: dict[str, list[Object]] = defaultdict(list)
        self.memory = Memory()
        self._uids = itertools.count(1)
        self.add("Node", "gpu-0", status={"allocatable": {GPU: "8", "cpu": "64"}})

    def add(self, kind: str, name: str, *, owner: Object | None = None, second: int = 0, **fields: Any) -> Object:
        """An object of any kind."""
        metadata: Object = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{next(self._uids)}",
            "generation": 1,
            "creationTimestamp": AT.format(second),
        }
        if owner:
            reference = {key: owner["metadata"][key] for key in ("name", "uid")}
            metadata["ownerReferences"] = [{**reference, "kind": owner["kind"], "controller": True}]
        obj = {"kind": kind, "metadata": metadata, **fields}
        self.found[kind].append(obj)
        return obj

    def remove(self, obj: Object) -> None:
        """It is gone."""
        self.found[obj["kind"]].remove(obj)

    def model(self, name: str = "tiny", *, gpus: int = 2, priority: int = 3, **spec: Any) -> Object:
        """An InferenceModel with its children, and no pod yet."""
        source = {"uri": "oci://models/tiny:1"}
        gpu = {"count": gpus, "resourceName": GPU}
        spec = {"framework": "vllm", "source": source, "gpu": gpu, "priority": priority, "replicas": 1, **spec}
        model = self.add("InferenceModel", name, spec=spec)
        self.add("Service", name, owner=model, spec={"ports": [{"port": 80}]})
        self.add("PodDisruptionBudget", name, owner=model, spec={})
        deployment = self.add(
            "Deployment",
            name,
            owner=model,
            spec={
                "replicas": 0 if spec.get("suspend") else spec["replicas"],
                "selector": {"matchLabels": {"app": name}},
                "strategy": {"rollingUpdate": {"maxSurge": 1}},
                "template": _template(1),
            },
            status={"observedGeneration": 1},
        )
        self.add("ReplicaSet", f"{name}-rs1", owner=deployment, spec={"template": _template(1, "rs1")})
        return model

    def roll_out(self, model: Object, *, surge: int = 1) -> Object:
        """A change of the template: the new ReplicaSet."""
        deployment = self.child("Deployment", model)
        revision = deployment["spec"]["template"]["metadata"]["labels"]["revision"] + 1
        deployment["spec"]["template"] = _template(revision)
        deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = surge
        name = f"{model['metadata']['name']}-rs{revision}"
        return self.add("ReplicaSet", name, owner=deployment, spec={"template": _template(revision, f"rs{revision}")})

    def child(self, kind: str, model: Object) -> Object:
        """The child of that kind; the newest ReplicaSet."""
        name = model["metadata"]["name"]
        return next(one for one in reversed(self.found[kind]) if one["metadata"]["name"].partition("-rs")[0] == name)

    def pod(self, model: Object, *, node: str = "", ready: bool = False, second: int = 0, **more: Any) -> Object:
        """A pod of the newest ReplicaSet, or of `replica_set`; with a status of its container, if one is given."""
        replica_set = more.pop("replica_set", None) or self.child("ReplicaSet", model)
        container, words = more.pop("container", {"state": {"running": {}}} if ready else None), more.pop("words", None)
        conditions: list[Object] = [{"type": "Ready", "status": str(ready)}]
        if words:
            conditions += [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words},
            ]
        count = str(model["spec"]["gpu"]["count"])
        spec: Object = {
            "containers": [{"resources": {"requests": {GPU: count, "cpu": "1"}}}],
            "priority": model["spec"]["priority"] * 1000,
        }
        status = {"conditions": conditions, "containerStatuses": [container] if container else []}
        name = f"{replica_set['metadata']['name']}-{next(self._uids)}"
        if node:
            spec["nodeName"] = node
        return self.add("Pod", name, owner=replica_set, second=second, spec=spec, status=status, **more)

    def serving(self, name: str = "tiny", **spec: Any) -> Object:
        """A model whose pods are all ready, with a status that is true."""
        model = self.model(name, **spec)
        for _ in range(model["spec"]["replicas"]):
            self.pod(model, node="gpu-0", ready=True)
        says(model)
        return model

    def waiting(self, name: str = "tiny", *, second: int = 0, **spec: Any) -> Object:
        """A model whose pod waits for GPUs; it says nothing yet."""
        model = self.model(name, **spec)
        self.pod(model, words=NO_GPU, second=second)
        return model

    def preempt(self, victim: Object, preemptor: Object, second: int = 10, *, node: str = "gpu-0") -> None:
        """The scheduler preempts a pod: its condition, and the Event; the pod is gone."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        victim["status"]["conditions"].append({**condition, "lastTransitionTime": AT.format(second)})
        victim["metadata"]["deletionTimestamp"] = AT.format(second)
        self.see()
        self.add(
            "Event",
            f"{victim['metadata']['name']}.1",
            reason="Preempted",
            eventTime=AT.format(second).replace("Z", ".123456Z"),
            involvedObject={
                "kind": "Pod",
                **{key: victim["metadata"][key] for key in ("name", "namespace", "uid")},
            },
            message=f"Preempted by pod {preemptor['metadata']['uid']} on node {node}",
        )
        self.remove(victim)
        self.see()

    def world(self) -> World:
        """This moment."""
        return World.of(self.found)

    def see(self) -> None:
        """The checker looks, and says nothing."""
        self.memory.see(self.world())

    def lies(self, **options: Any) -> list[Falsehood]:
        """All that is false now."""
        self.see()
        return falsehoods(self.world(), self.memory, **options)

    def false_fields(self, **options: Any) -> set[str]:
        """The names of the fields that are false now."""
        return {lie.field for lie in self.lies(**options)}


def _template(revision: int, pod_hash: str = "") -> Object:
    labels: Object = {"revision": revision, **({"pod-template-hash": pod_hash} if pod_hash else {})}
    return {"metadata": {"labels": labels}, "spec": {}}


SERVING: dict[str, VERDICT] = {
    "Ready": ("True", "Serving"),
    "Scheduled": ("True", "Scheduled"),
    "ModelLoaded": ("Unknown", "FactsUnavailable"),
    "Progressing": ("False", "Complete"),
    "Preempted": ("False", "Never"),
}


def says(
    model: Object, phase: str = "Running", replicas: int | None = None, ready: int | None = None, /, **verdicts: VERDICT
) -> None:
    """Gives the model a status; a condition that is not named is that of a model that serves."""
    spec, metadata = model["spec"], model["metadata"]
    replicas = spec["replicas"] if replicas is None else replicas
    kept = {key: value for key, value in model.get("status", {}).items() if key == "preemption"}
    model["status"] = {
        "phase": phase,
        "observedGeneration": metadata["generation"],
        "replicas": replicas,
        "readyReplicas": replicas if ready is None else ready,
        "readyOfDesired": f"{replicas if ready is None else ready}/{asked(model)}",
        "selector": f"app={metadata['name']}",
        "url": f"http://{metadata['name']}.{metadata['namespace']}.svc/v1",
        "servedName": metadata["name"],
        "conditions": [
            {
                "type": kind,
                "status": state,
                "reason": reason,
                "message": "as it is",
                "observedGeneration": metadata["generation"],
            }
            for kind, (state, reason) in _with_kstatus({**SERVING, **verdicts}).items()
        ],
        **kept,
    }


def _with_kstatus(verdicts: dict[str, VERDICT]) -> dict[str, VERDICT]:
    """With what follows for Reconciling and Stalled from the others, where a test does not say them itself."""
    state, reason = verdicts["Progressing"]
    passes = verdicts["ModelLoaded"][1] in ("ImagePullFailed", "CrashLooping", "VolumeUnavailable")
    if state == "True" or (reason == "RolloutStuck" and passes):
        return {**verdicts, "Reconciling": ("True", reason)}
    fine = reason == "Complete" or verdicts["Ready"][1] in ("Stopped", "Stopping")
    return verdicts if fine or "Reconciling" in verdicts else {**verdicts, "Stalled": ("True", reason)}


WAITS: dict[str, VERDICT] = {
    "Ready": ("False", "WaitingForGPU"),
    "Scheduled": ("False", "WaitingForGPU"),
    "ModelLoaded": ("False", "Unloaded"),
    "Progressing": ("True", "RollingOut"),
}


def says_it_waits(model: Object, position: int, of: int, amount: str = "2", /, **verdicts: VERDICT) -> None:
    """The status of a model that waits for GPUs, at that queue position."""
    says(model, "WaitingForResources", None, 0, **{**WAITS, **verdicts})
    model["status"]["queue"] = {
        "position": position,
        "of": of,
        "summary": f"{position}/{of}",
        "waitingFor": f"{amount} {GPU}",
    }
