"""The management API as clients see it: people of Kubernetes with roles of the chart, and their tokens."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.api import Api
from tests.support.people import RBAC

MODEL = {"framework": "llamacpp", "source": {"uri": "oci://localhost/models/smollm2:135m-q4"}}


@dataclass
class Manager:
    """Somebody who talks to the management API."""

    http: httpx.Client
    namespace: str

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request; names of headers have underscores for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, path, json=body, headers=sent)

    def path(self, name: str, action: str = "") -> str:
        """The address of a model of their namespace."""
        return f"/api/models/{self.namespace}/{name}" + (f"/{action}" if action else "")

    def create(self, name: str = "tiny", **body: Any) -> httpx.Response:
        """Create a model there, with `body` beside its name and namespace."""
        sent = {"name": name, "namespace": self.namespace, **(body or {"spec": MODEL})}
        return self.ask("POST", "/api/models", sent)


def token_of(api: Api, account: str, *roles: str, audiences: list[str] | None = None, everywhere: bool = False) -> str:
    """A token of a service account of the namespace, which is made, and has these ClusterRoles there."""
    accounts = f"/api/v1/namespaces/{api.namespace}/serviceaccounts"
    api.request("POST", accounts, json={"metadata": {"name": account}})
    where = "clusterrolebindings" if everywhere else f"namespaces/{api.namespace}/rolebindings"
    kind = "ClusterRoleBinding" if everywhere else "RoleBinding"
    for role in roles:
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": f"{api.namespace}-{account}-{role}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": api.namespace}],
        }
        api.request("POST", f"{RBAC}/{where}", json=binding)
    spec = {"spec": {"audiences": audiences} if audiences else {}}
    return str(api.request("POST", f"{accounts}/{account}/token", json=spec)["status"]["token"])


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, with its status."""
    told: dict[str, Any] = answer.json()["error"]
    return {"status": answer.status_code, **told}
