"""The kinds of the API and the paths of requests: no name that somebody else has chosen makes another path.

Only Kubernetes' own kinds are here, those that a part of ours reads or writes.
"""

import re
from dataclasses import dataclass
from typing import Final

from moorage_common.kube.errors import InvalidNameError

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Resource:
    """A kind in the API."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The request path; a namespace of None means all of them."""
        parts = ["api" if not self.group else f"apis/{self.group}", self.version]
        parts += ["namespaces", named(namespace)] if namespace else []
        parts += [part for part in (self.plural, named(name) if name else None, subresource) if part]
        return "/" + "/".join(parts)


def named(name: str) -> str:
    """The name if an object can have it (all kinds here have DNS subdomains); else InvalidNameError."""
    if not _NAME.fullmatch(name):
        raise InvalidNameError(f"{name[:100]!r} is no name of an object")
    return name


INFERENCE_MODELS: Final = Resource("moorage.dev", "v1alpha1", "inferencemodels", "InferenceModel")
MODEL_ALIASES: Final = Resource("moorage.dev", "v1alpha1", "modelaliases", "ModelAlias")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
SERVICES: Final = Resource("", "v1", "services", "Service")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
PODS: Final = Resource("", "v1", "pods", "Pod")
DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
EVENTS: Final = Resource("", "v1", "events", "Event")
NODES: Final = Resource("", "v1", "nodes", "Node")
RESOURCE_QUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES: Final = Resource("", "v1", "limitranges", "LimitRange")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")
SUBJECT_ACCESS_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview")
SELF_SUBJECT_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview")
SELF_ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"
)
