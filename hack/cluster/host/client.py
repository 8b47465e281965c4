"""The official client, as the start of a cluster and the tests need it, and other things that are waited for."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient as Transport
from kubernetes.client import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import load_kube_config
from kubernetes.dynamic import DynamicClient
from urllib3.exceptions import HTTPError

from hack.cluster.errors import ApiError, StartError
from hack.cluster.host.addresses import LOOPBACK

POLL_SECONDS = 0.03
REQUEST_SECONDS = 10.0


def connect(kubeconfig: Path) -> DynamicClient:
    """Give a client for requests by path; it neither retries nor takes a proxy, as clusters are on this host.

    It has no discovery, which would keep a file in /tmp under a name that others can guess.
    """
    configuration = Configuration(proxy="", retries=False)
    load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
    return DynamicClient(Transport(configuration), discoverer=lambda *_: None)


class ApiClient:
    """Speaks to one API server with the certificate of a kubeconfig that hack.cluster wrote."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = connect(kubeconfig)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request; give the answer's JSON, or its text where it is none."""
        options = {"serializer": lambda _, answer: answer, "_request_timeout": REQUEST_SECONDS}
        try:
            return self._client.request(method, path, body=body, **options)
        except ApiException as error:
            raise ApiError(f"{method} {path}: {error.status} {str(error.body)[:500]}", status=error.status) from error

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Create an object; one that is already there is left as it is."""
        try:
            self.request("POST", path, body)
        except ApiError as error:
            if error.status != http.client.CONFLICT:
                raise

    def answers(self, path: str) -> bool:
        """Say whether a GET succeeds at this moment."""
        try:
            self.request("GET", path)
        except (HTTPError, ApiError):
            return False
        return True


def http_answers(port: int, path: str, *, tls: bool, host: str = LOOPBACK) -> bool:
    """Say whether a component's health endpoint answers 200."""
    connection = (
        # The serving certificates of the controllers are self-signed by themselves; health is no secret.
        http.client.HTTPSConnection(host, port, timeout=2, context=ssl._create_unverified_context())  # noqa: S323
        if tls
        else http.client.HTTPConnection(host, port, timeout=2)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until(what: str, holds: Callable[[], bool], *, timeout: float, alive: Callable[[], None]) -> None:
    """Poll tightly until a condition holds; `alive` raises as soon as waiting has become pointless."""
    deadline = time.monotonic() + timeout
    while not holds():
        alive()
        if time.monotonic() > deadline:
            raise StartError(f"{what} did not happen within {timeout:.0f} s.")
        time.sleep(POLL_SECONDS)
