"""Builds the Deployment of a model. Pure.

Every value is written as the API server stores it, so that comparing with a live object finds real differences only.
"""

from typing import Any, Final

from moorage_common.labels import (
    ASLEEP_ANNOTATION,
    MODEL_UID_LABEL,
    RESTARTED_AT_ANNOTATION,
    REVISION_LABEL,
    RUNTIME_PORT_NAME,
    TRIED_UNDER_ANNOTATION,
)
from moorage_operator.api.v1alpha1 import InferenceModel, InferenceModelSpec
from moorage_operator.desired import names
from moorage_operator.desired.config import Circumstances, DesiredConfig
from moorage_operator.desired.drift import digest
from moorage_operator.desired.fetch import fetch_container
from moorage_operator.desired.storage import ModelStorage, storage
from moorage_operator.engines import ENGINES, environment
from moorage_operator.engines.base import device

CONTAINER_NAME: Final = "runtime"
TERMINATION_MESSAGE_PATH: Final = "/dev/termination-log"
RUN_AS: Final = 65532
DRAIN_SECONDS: Final = 30
# Without a limit of its own: what is in it counts as memory of the pod, which has one.
_SHM_VOLUME: Final = {"name": "shm", "emptyDir": {"medium": "Memory"}}
_SHM_MOUNT: Final = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108


def deployment(model: InferenceModel, image: str, config: DesiredConfig, now: Circumstances) -> dict[str, Any]:
    """The Deployment: pods of the runtime `image` with the model mounted."""
    annotations = {TRIED_UNDER_ANNOTATION: now.tried_under} if now.tried_under else {}
    if now.replicas == 0:
        annotations[ASLEEP_ANNOTATION] = "true"
    metadata = {**names.metadata(model), **({"annotations": annotations} if annotations else {})}
    # The uid tells the pods of this model from those that an earlier one of its name has left; the revision tells those
    # of the spec as it is now from those of an earlier spec.
    pod_labels = {**names.labels(model), MODEL_UID_LABEL: model.metadata.uid}
    pod = _pod(model, image, config)
    # As `kubectl rollout restart` does: another text in the template makes other pods.
    restarted = model.metadata.restarted_at
    notes = {"annotations": {RESTARTED_AT_ANNOTATION: restarted}} if restarted else {}
    revision = digest({"labels": pod_labels, "pod": pod, **notes})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": model.spec.desired_replicas if now.replicas is None else now.replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": names.selector(model.metadata.name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0 if now.make_room else 1, "maxUnavailable": 1 if now.make_room else 0},
            },
            "template": {
                "metadata": {"labels": {**pod_labels, REVISION_LABEL: revision}, **notes},
                "spec": pod,
            },
        },
    }


def _pod(model: InferenceModel, image: str, config: DesiredConfig) -> dict[str, Any]:
    files = storage(model.spec.source, config.image_pull_policy)
    fetched = model.spec.source.is_fetched
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **_pull_secrets(config),
        "priorityClassName": f"{config.priority_class_prefix}{model.spec.priority}",
        "terminationGracePeriodSeconds": DRAIN_SECONDS + 10,
        "securityContext": _security(config),
        **({"initContainers": [fetch_container(model, image, config.image_pull_policy)]} if fetched else {}),
        "containers": [_container(model, image, files, config)],
        "volumes": [files.volume, {"name": "tmp", "emptyDir": {}}, *_shared_memory(model.spec, _SHM_VOLUME)],
        **_placement(model.spec, config),
    }


def _security(config: DesiredConfig) -> dict[str, Any]:
    user = {"runAsUser": RUN_AS, "runAsGroup": RUN_AS, "fsGroup": RUN_AS} if config.set_user else {}
    return {"runAsNonRoot": True, **user, "seccompProfile": {"type": "RuntimeDefault"}}


def _container(model: InferenceModel, image: str, files: ModelStorage, config: DesiredConfig) -> dict[str, Any]:
    engine = ENGINES[model.spec.framework]
    settings = {
        # First, so that none of ours can be replaced.
        **dict(sorted((variable.name, variable.value) for variable in model.spec.env or ())),
        **environment(model, files.path),
        "DRAIN_TIMEOUT": str(DRAIN_SECONDS),
        # All files are there before it starts; an engine that looks for more on the network hangs, or leaks.
        "HF_HUB_OFFLINE": "1",
        "HOME": "/tmp",  # noqa: S108 - the pod's own volume
        "PORT": str(engine.port),
    }
    return {
        "name": CONTAINER_NAME,
        "image": image,
        "imagePullPolicy": config.image_pull_policy,
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        "ports": [{"name": RUNTIME_PORT_NAME, "containerPort": engine.port, "protocol": "TCP"}],
        "resources": _resources(model.spec),
        **engine.probes(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [files.mount, {"name": "tmp", "mountPath": "/tmp"}, *_shared_memory(model.spec, _SHM_MOUNT)],  # noqa: S108
    }


def _shared_memory(spec: InferenceModelSpec, part: dict[str, Any]) -> list[dict[str, Any]]:
    return [part] if ENGINES[spec.framework].shared_memory else []


def _resources(spec: InferenceModelSpec) -> dict[str, Any]:
    """CPU is reserved but limited only on demand, for a limit throttles; memory and GPUs are both."""
    asked = spec.resources
    gpus = {spec.gpu.resource_name: str(spec.gpu.count)} if spec.gpu.count else {}
    memory = {"memory": str(asked.memory)}
    limit = {} if asked.cpu_limit is None else {"cpu": str(asked.cpu_limit)}
    return {"requests": {"cpu": str(asked.cpu), **memory, **gpus}, "limits": {**limit, **memory, **gpus}}


def _pull_secrets(config: DesiredConfig) -> dict[str, Any]:
    """The kubelet uses them for image volumes, too."""
    secrets = [{"name": name} for name in config.image_pull_secrets]
    return {"imagePullSecrets": secrets} if secrets else {}


def _placement(spec: InferenceModelSpec, config: DesiredConfig) -> dict[str, Any]:
    """Where and by which container runtime the pods may run; nothing where spec and settings leave it open."""
    runtime_class = config.runtime_classes.get(device(spec))
    tolerations = [
        toleration.model_dump(by_alias=True, mode="json", exclude_none=True) for toleration in spec.tolerations or ()
    ]
    return {
        **({"runtimeClassName": runtime_class} if runtime_class else {}),
        **({"nodeSelector": dict(sorted(spec.node_selector.items()))} if spec.node_selector else {}),
        **({"tolerations": tolerations} if tolerations else {}),
    }
