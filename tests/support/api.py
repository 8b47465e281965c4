"""A client of the API server for tests: acts as an administrator, waits by watching and never by sleeping."""

import base64
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

Object = dict[str, Any]

PATHS = {
    "InferenceModel": "/apis/moorage.dev/v1alpha1/namespaces/{}/inferencemodels",
    "ModelAlias": "/apis/moorage.dev/v1alpha1/namespaces/{}/modelaliases",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "Event": "/api/v1/namespaces/{}/events",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
}


class ApiRefusedError(Exception):
    """The API server said no; `status` is its HTTP status, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """One namespace, seen through a kubeconfig."""

    def __init__(self, kubeconfig: Path, namespace: str = "default") -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace
        self.headers: dict[str, str] = {}
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = self.context = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority"))
        if "token" not in user:
            with tempfile.NamedTemporaryFile("w") as cert, tempfile.NamedTemporaryFile("w") as key:
                cert.write(_pem(user, "client-certificate"))
                key.write(_pem(user, "client-key"))
                cert.flush()
                key.flush()
                context.load_cert_chain(cert.name, key.name)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self.http = httpx.Client(
            base_url=cluster["server"], verify=context, headers=headers, timeout=30, trust_env=False
        )

    def concurrent(self) -> httpx.AsyncClient:
        """A client of the same server and rights for an event loop; the caller closes it."""
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=self.http.base_url,
            verify=self.context,
            headers=self.http.headers,
            timeout=30,
            limits=limits,
            trust_env=False,
        )

    def at(self, namespace: str) -> "Api":
        """The same client for another namespace."""
        other = object.__new__(Api)
        other.__dict__ = {**self.__dict__, "namespace": namespace}
        return other

    def as_user(self, user: str) -> "Api":
        """The same client, acting as somebody else, who has no rights but those that were given to them."""
        other = self.at(self.namespace)
        other.headers = {**self.headers, "Impersonate-User": user}
        return other

    def request(self, method: str, path: str, **kwargs: Any) -> Object:
        """A request; raises ApiRefusedError for an answer that is no success."""
        headers = {**self.headers, **kwargs.pop("headers", {})}
        response = self.http.request(method, path, headers=headers, **kwargs)
        if response.is_error:
            raise ApiRefusedError(response.status_code, response.json().get("message", response.text))
        answer: Object = response.json()
        return answer

    def path(self, kind: str, name: str | None = None) -> str:
        """The path of a kind, or of one object."""
        return PATHS[kind].format(self.namespace) + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None."""
        try:
            return self.request("GET", self.path(kind, name))
        except ApiRefusedError as refusal:
            if refusal.status == 404:
                return None
            raise

    def find(self, kind: str, selector: str = "") -> list[Object]:
        """The objects that match a label selector."""
        items: list[Object] = self.request("GET", self.path(kind), params={"labelSelector": selector})["items"]
        return items

    def create(self, manifest: Object, *, validate: str = "Strict", dry_run: bool = False) -> Object:
        """Creates an object; unknown fields are refused, as kubectl does by default."""
        params = {"fieldValidation": validate, **({"dryRun": "All"} if dry_run else {})}
        return self.request("POST", self.path(manifest["kind"]), json=manifest, params=params)

    def patch(self, kind: str, name: str, patch: Object, subresource: str = "") -> Object:
        """A JSON merge patch."""
        headers = {"Content-Type": "application/merge-patch+json"}
        path = self.path(kind, name) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, content=msgspec.json.encode(patch), headers=headers)

    def delete(self, kind: str, name: str) -> None:
        """Deletes an object; one that is gone is fine."""
        try:
            self.request("DELETE", self.path(kind, name))
        except ApiRefusedError as refusal:
            if refusal.status != 404:
                raise

    def wait_until_alone(self, seconds: float = 90) -> None:
        """Returns once the namespaces of earlier tests are gone, so that nothing happens but what a test does."""
        deadline = time.monotonic() + seconds
        while others := self._other_test_namespaces():
            assert time.monotonic() < deadline, f"namespaces do not go: {others}"
            params = {"watch": "true", "timeoutSeconds": "10", "fieldSelector": f"metadata.name={others[0]}"}
            with self.http.stream("GET", "/api/v1/namespaces", params=params) as response:
                for line in response.iter_lines():
                    if msgspec.json.decode(line)["type"] == "DELETED":
                        break
        self._delete_what_is_left_behind()

    def _delete_what_is_left_behind(self) -> None:
        """Deletes models whose namespace is gone: an API server that a test has killed meanwhile may leave some."""
        namespaces = {item["metadata"]["name"] for item in self.request("GET", "/api/v1/namespaces")["items"]}
        for model in self.request("GET", "/apis/moorage.dev/v1alpha1/inferencemodels")["items"]:
            if model["metadata"]["namespace"] not in namespaces:
                self.at(model["metadata"]["namespace"]).delete("InferenceModel", model["metadata"]["name"])

    def _other_test_namespaces(self) -> list[str]:
        names = [item["metadata"]["name"] for item in self.request("GET", "/api/v1/namespaces")["items"]]
        return [name for name in names if name.startswith("test-") and name != self.namespace]

    def wait(
        self, kind: str, name: str, until: Callable[[Object | None], Any], *, what: str, seconds: float = 30
    ) -> Object | None:
        """The object once `until` holds for it (None: it does not exist); else an AssertionError with its state."""
        deadline = time.monotonic() + seconds
        while True:
            current, version = self._look(kind, name)
            if until(current):
                return current
            left = deadline - time.monotonic()
            assert left > 0, f"after {seconds} s still not: {what}\n{_brief(current)}"
            for changed in self._changes(kind, name, version, left):
                if until(changed):
                    return changed

    def _look(self, kind: str, name: str) -> tuple[Object | None, str]:
        """The object, and the version to watch from: else what happens before the watch begins would be missed."""
        found = self.request("GET", self.path(kind), params={"fieldSelector": f"metadata.name={name}"})
        # A list leaves out the kind of its items.
        typed = [{"apiVersion": found["apiVersion"], "kind": kind, **item} for item in found["items"]]
        return next(iter(typed), None), found["metadata"]["resourceVersion"]

    def wait_for_change(self, kind: str, version: str, *, seconds: int) -> None:
        """Returns when an object of that kind has changed since `version`, or after `seconds`."""
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        with self.http.stream("GET", self.path(kind), params=params, timeout=seconds + 5) as response:
            next(response.iter_lines(), None)

    def _changes(self, kind: str, name: str, version: str, seconds: float) -> Iterator[Object | None]:
        params = {
            "watch": "true",
            "resourceVersion": version,
            "fieldSelector": f"metadata.name={name}",
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        with self.http.stream(
            "GET", self.path(kind), params=params, headers=self.headers, timeout=seconds + 5
        ) as response:
            for line in response.iter_lines():
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    return
                yield None if event["type"] == "DELETED" else event["object"]


def condition(obj: Object | None, kind: str) -> Object:
    """A condition of an object's status; empty when it is not there."""
    conditions = (obj or {}).get("status", {}).get("conditions", ())
    return next((entry for entry in conditions if entry["type"] == kind), {})


def reason(obj: Object | None, kind: str = "Ready") -> str:
    """The reason of a condition."""
    return str(condition(obj, kind).get("reason", ""))


def is_ready(obj: Object | None) -> bool:
    """Whether Ready is True for the spec as it is now."""
    ready = condition(obj, "Ready")
    return obj is not None and ready.get("status") == "True" and settled(obj)


def settled(obj: Object | None) -> bool:
    """Whether the status is about the spec as it is now."""
    return obj is not None and obj.get("status", {}).get("observedGeneration") == obj["metadata"]["generation"]


def _pem(section: Object, field: str) -> str:
    if f"{field}-data" in section:
        return base64.b64decode(section[f"{field}-data"]).decode()
    return Path(section[field]).read_text()


def _brief(obj: Object | None) -> str:
    if obj is None:
        return "it does not exist"
    return yaml.safe_dump({key: obj[key] for key in ("spec", "status") if key in obj})
