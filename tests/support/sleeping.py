"""Gateways that an operator on this host can follow, and pods that answer: their slices are made by hand.

No address of the loopback may stand in an EndpointSlice, so all of them listen at one of this host's own.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.api import Api, ApiRefusedError, Object
from tests.support.operator import NAMESPACE

SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
GATEWAYS = "moorage-gateway-admin"


def own_address() -> str:
    """An address of this host that is not of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: it only asks which address would be used.
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        return address


def put_slice(api: Api, name: str, labels: dict[str, str], port_name: str, port: int | None) -> None:
    """Make or replace a slice with one address of this host; without a port it has none."""
    path = SLICES.format(api.namespace)
    body: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port or 1, "protocol": "TCP"}],
        "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}] if port else [],
    }
    drop_slice(api, name)
    api.request("POST", path, json=body)


def drop_slice(api: Api, name: str) -> None:
    """Take a slice away, if it is there."""
    try:
        api.request("DELETE", f"{SLICES.format(api.namespace)}/{name}")
    except ApiRefusedError as refusal:
        if refusal.status != 404:
            raise


@contextmanager
def announced(admin: Api, name: str, port: int) -> Iterator[None]:
    """The operator is told that a gateway's administrative port is there."""
    api = admin.at(NAMESPACE)
    put_slice(api, name, {"kubernetes.io/service-name": GATEWAYS}, "admin", port)
    try:
        yield
    finally:
        drop_slice(api, name)


def becomes_ready(api: Api, model: str, port: int | None) -> None:
    """A pod of the model is ready at a port of this host; or none is."""
    labels = {"app.kubernetes.io/managed-by": "moorage", "moorage.dev/model": model}
    put_slice(api, f"{model}-by-hand", labels, "http", port)


class AnsweringPod:
    """A pod that answers completions, when it may."""

    def __init__(self) -> None:
        self.requests = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        pod = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Answer."""
                self.rfile.read(int(self.headers["Content-Length"]))
                pod.requests += 1
                pod.may_answer.wait()
                choice = {"index": 0, "text": "Paris", "finish_reason": "stop"}
                usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
                body = json.dumps({"choices": [choice], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104 - a slice needs an address of the host
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    @contextmanager
    def serving(self) -> Iterator["AnsweringPod"]:
        """It listens until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.may_answer.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class Asking:
    """Requests on threads of their own, and what became of them."""

    def __init__(self, url: str, key: str, model: str, number: int = 1) -> None:
        self.answers: list[tuple[int, str]] = []
        body, headers = json.dumps({"model": model, "prompt": "Hi"}), {"Authorization": f"Bearer {key}"}
        connections = [HTTPConnection(urlsplit(url).netloc, timeout=60) for _ in range(number)]
        for connection in connections:
            connection.request("POST", "/v1/completions", body, headers)
        self._threads = [threading.Thread(target=self._read, args=(connection,)) for connection in connections]
        for thread in self._threads:
            thread.start()

    def _read(self, connection: HTTPConnection) -> None:
        try:
            with closing(connection):
                answer = connection.getresponse()
                self.answers.append((answer.status, answer.read().decode()))
        except (OSError, HTTPException) as error:
            self.answers.append((0, repr(error)))

    def join(self) -> list[int | str]:
        """The statuses, or what came instead, once all are there."""
        for thread in self._threads:
            thread.join()
        return [status or text for status, text in self.answers]
