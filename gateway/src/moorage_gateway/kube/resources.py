"""The kinds of the API and the paths of requests: no name that somebody else has chosen makes another path.

Only the kinds that the gateway and its management API read or write are here.
"""

import re
from dataclasses import dataclass
from typing import Final

from moorage_gateway.kube.errors import InvalidNameError

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
PODS: Final = Resource("", "v1", "pods", "Pod")
NODES: Final = Resource("", "v1", "nodes", "Node")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")
SUBJECT_ACCESS_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview")
SELF_SUBJECT_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview")
SELF_ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"
)
