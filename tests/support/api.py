"""A client of the API server for tests: acts as an administrator, waits by watching and never by sleeping."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import yaml
from kubernetes.client.exceptions import ApiException
from urllib3 import BaseHTTPResponse

from hack.cluster.host.client import connect

SECONDS = 30

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
        self._client = connect(kubeconfig)
        self.server: str = self._client.configuration.host

    def close(self) -> None:
        """Close the connections, those of `at` and `as_user` too."""
        self._client.client.close()

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

    def answer(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = SECONDS,
    ) -> BaseHTTPResponse:
        """The answer to a request, not read yet; raises ApiRefusedError for one that is no success."""
        sent = {**self.headers, **(headers or {})}
        try:
            answer: BaseHTTPResponse = self._client.request(
                method,
                path,
                body=json,
                query_params=[*(params or {}).items()],
                header_params=sent,
                content_type=sent.get("Content-Type"),
                serialize=False,
                _request_timeout=(SECONDS, timeout),
            )
        except ApiException as refusal:
            raise ApiRefusedError(refusal.status, _message(refusal)) from refusal
        return answer

    def request(self, method: str, path: str, **options: Any) -> Object:
        """What a request, as `answer` takes it, is answered with."""
        answer: Object = msgspec.json.decode(self.answer(method, path, **options).data)
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
        return self.request("PATCH", path, json=patch, headers=headers)

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
            events = self._watch("/api/v1/namespaces", 10, fieldSelector=f"metadata.name={others[0]}")
            with closing(events):
                any(event["type"] == "DELETED" for event in events)
        self._delete_what_is_left_behind()

    def _delete_what_is_left_behind(self) -> None:
        """Deletes models whose namespace is gone: an API server that a test has killed meanwhile may leave some."""
        namespaces = {item["metadata"]["name"] for item in self.request("GET", "/api/v1/namespaces")["items"]}
        for model in self.request("GET", "/apis/moorage.dev/v1alpha1/inferencemodels")["items"]:
            if model["metadata"]["namespace"] not in namespaces:
                self.at(model["metadata"]["namespace"]).delete("InferenceModel", model["metadata"]["name"])

    def _other_test_namespaces(self) -> list[str]:
        names = [item["metadata"]["name"] for item in self.request("GET", "/api/v1/namespaces")["items"]]
        return [name for name in names if name.startswith(("test-", "e2e-")) and name != self.namespace]

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
        with closing(self._watch(self.path(kind), seconds, resourceVersion=version)) as events:
            next(events, None)

    def _changes(self, kind: str, name: str, version: str, seconds: float) -> Iterator[Object | None]:
        which = {"resourceVersion": version, "fieldSelector": f"metadata.name={name}"}
        with closing(self._watch(self.path(kind), max(1, int(seconds)), **which)) as events:
            for event in events:
                if event["type"] == "ERROR":
                    return
                yield None if event["type"] == "DELETED" else event["object"]

    def _watch(self, path: str, seconds: int, **which: str) -> Generator[Object]:
        params = {"watch": "true", "timeoutSeconds": str(seconds), **which}
        with closing(self.answer("GET", path, params=params, timeout=seconds + 5)) as lines:
            yield from map(msgspec.json.decode, lines)


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


def _message(refusal: ApiException) -> str:
    try:
        return str(msgspec.json.decode(refusal.body or "")["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return str(refusal.body or refusal.reason)


def _brief(obj: Object | None) -> str:
    if obj is None:
        return "it does not exist"
    return yaml.safe_dump({key: obj[key] for key in ("spec", "status") if key in obj})
