"""Pods of a model without a node: runtimes with the dummy engine as processes of this host, and their slices."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, RUNTIME_PORT_NAME
from tests.integration.runtime.conftest import Runtime, runtime_process
from tests.support.api import Api

SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"


def own_address() -> str:
    """An address of this host that is none of the loopback, which the API server does not take for a pod's."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET and not address.address.startswith(("127.", "169.254."))
    ]
    assert found, (
        "this host has no address but those of the loopback: add one, such as `ip address add 10.99.99.1 dev lo`"
    )
    return found[0]


@dataclass
class Fleet:
    """The pods of one model."""

    api: Api
    model: str
    pods: list[Runtime]

    def kill(self, number: int) -> None:
        """End a pod as the kernel does for memory; nobody has told the gateway yet."""
        self.pods[number].process.kill()
        self.pods[number].process.wait()

    def leave(self, number: int) -> None:
        """Tell the cluster that a pod is not there any more."""
        self.api.request("DELETE", f"{SLICES.format(self.api.namespace)}/{self.model}-{number}")


@contextmanager
def fleet(api: Api, model: str, folder: Path, count: int = 1, **settings: str) -> Iterator[Fleet]:
    """Run `count` pods of a model until the end of the block."""
    address = own_address()
    with ExitStack() as stack:
        pods = []
        for number in range(count):
            place = folder / f"{model}-{number}"
            place.mkdir()
            environment = {"MODEL_BACKEND": "dummy", "MODEL_NAME": model, "HOST": "0.0.0.0", **settings}  # noqa: S104
            pods.append(stack.enter_context(runtime_process(place, **environment)))
        for number, pod in enumerate(pods):
            pod.wait_ready()
            body = {
                "metadata": {
                    "name": f"{model}-{number}",
                    "labels": {MANAGED_BY_LABEL: MANAGED_BY, MODEL_LABEL: model},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": RUNTIME_PORT_NAME, "port": pod.port, "protocol": "TCP"}],
            }
            api.request("POST", SLICES.format(api.namespace), json=body)
        yield Fleet(api, model, pods)
