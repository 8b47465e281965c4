"""The kinds of the API that the operator reads or writes, and the name under which it does.

They are the `kubernetes` package's own Resources, made by hand: its discovery keeps a cache under a name in /tmp that
anybody on the machine can guess, and asks the API server for what is known here.
"""

import re
from typing import Any, Final

from kubernetes.aio.dynamic import Resource

from moorage_operator.cluster.errors import InvalidNameError

FIELD_MANAGER: Final = "moorage-operator"
"""Who we are to the API server: the manager of the fields that we apply, and the user agent."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _kind(group_version: str, plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    group, _, version = group_version.rpartition("/")
    prefix = "apis" if group else "api"
    return Resource(prefix, group, version, kind, namespaced, name=plural)


INFERENCE_MODELS: Final = _kind("moorage.dev/v1alpha1", "inferencemodels", "InferenceModel")
DEPLOYMENTS: Final = _kind("apps/v1", "deployments", "Deployment")
SERVICES: Final = _kind("v1", "services", "Service")
REPLICA_SETS: Final = _kind("apps/v1", "replicasets", "ReplicaSet")
PODS: Final = _kind("v1", "pods", "Pod")
DISRUPTION_BUDGETS: Final = _kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
EVENTS: Final = _kind("v1", "events", "Event")
NODES: Final = _kind("v1", "nodes", "Node", namespaced=False)
RESOURCE_QUOTAS: Final = _kind("v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES: Final = _kind("v1", "limitranges", "LimitRange")
NAMESPACES: Final = _kind("v1", "namespaces", "Namespace", namespaced=False)
LEASES: Final = _kind("coordination.k8s.io/v1", "leases", "Lease")
ENDPOINT_SLICES: Final = _kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")

BY_KIND: Final[dict[str, Resource]] = {found.kind: found for found in (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS)}
"""What a model may have made for it, by the kind in its manifest."""


def path_of(resource: Resource, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    """The request path; a namespace of None means all of them. InvalidNameError if no object can have such a name.

    A name that somebody else has chosen must never make another path.
    """
    for part in (namespace, name):
        if part is not None and not _NAME.fullmatch(part):
            raise InvalidNameError(f"{part[:100]!r} is not a name that an object can have")
    path: str = resource.path(name=name, namespace=namespace)
    return f"{path}/{subresource}" if subresource else path


def described(resource: Resource, namespace: str | None) -> str:
    """`pods in namespace team-a`, for messages."""
    where: Any = f"in namespace {namespace}" if namespace else "in all namespaces"
    return f"{resource.name} {where}" if resource.namespaced else str(resource.name)
