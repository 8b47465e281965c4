"""People with the rights that the chart's roles give them in a namespace."""

import time

from tests.support.api import Api

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
VERBS = {"moorage-view": "list", "moorage-edit": "create", "moorage-admin": "use-custom-image"}
"""A verb that each role gives, to see whether it has been given yet."""


def person(api: Api, user: str, *roles: str) -> Api:
    """A client that acts as `user`, who has these ClusterRoles of the chart in the namespace."""
    theirs = api.as_user(user)
    for role in roles:
        binding = {
            "metadata": {"name": f"{user}-{role}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
        api.request("POST", f"{RBAC}/namespaces/{api.namespace}/rolebindings", json=binding)
        _wait_until_allowed(theirs, VERBS[role])
    return theirs


def _wait_until_allowed(api: Api, verb: str) -> None:
    attributes = {"namespace": api.namespace, "group": "moorage.dev", "resource": "inferencemodels", "verb": verb}
    review = {"spec": {"resourceAttributes": attributes}}
    deadline = time.monotonic() + 10
    while not api.request("POST", REVIEWS, json=review)["status"]["allowed"]:
        assert time.monotonic() < deadline, f"{verb} is not allowed"
        time.sleep(0.02)  # the authorizer is asked; what it has taken in, nothing tells
