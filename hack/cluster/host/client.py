"""A small client of the API server: what the start of a cluster needs, without a process for every object."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.errors import ApiError, StartError
from hack.cluster.host.addresses import LOOPBACK

POLL_SECONDS = 0.03
REQUEST_SECONDS = 10.0


class ApiClient:
    """Speaks to one API server with the certificate of a kubeconfig that hack.cluster wrote."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self._address = urllib.parse.urlsplit(cluster["server"])
        self._context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as pair:
            # The ssl module loads a client's key from a file only.
            pair.write(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
            pair.flush()
            self._context.load_cert_chain(pair.name)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request; give the answer's JSON, or its text where it is none."""
        host, port = self._address.hostname or "", self._address.port
        connection = http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=self._context)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status >= 400:
                raise ApiError(f"{method} {path}: {answer.status} {text[:500]}", status=answer.status)
            return json.loads(text) if "json" in (answer.getheader("Content-Type") or "") else text
        finally:
            connection.close()

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
        except (OSError, http.client.HTTPException, ApiError):
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


def _decode(data: str) -> str:
    return base64.b64decode(data).decode()
