"""A gateway that serves two namespaces, `a` and `b`, by the chart's Roles in each, so that one of them can be lost."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.gateway import GatewayProcess, gateway_with, make_key
from tests.support.models import model
from tests.support.operator import ROOT, kubeconfig_of, kubectl
from tests.support.sleeping import AnsweringPod, becomes_ready
from tests.support.tokens import token
from tests.support.waiting import eventually

BACK_SECONDS: Final = 10.0
"""Within which a namespace is served again once the gateway has its rights again."""
ACCOUNT: Final = "moorage-gateway"
_RBAC: Final = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


@dataclass(frozen=True)
class Times:
    """The gateway's own times, or shorter ones."""

    renew: float
    silent: float
    refused: float
    kept: float
    constants: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def short(cls, renew: float = 2, silent: float = 12, refused: float = 2, kept: float = 6) -> "Times":
        """Times for which a test can wait."""
        names = ("kube.client.RENEW_SECONDS", "server.DEAF_SECONDS", "view.REFUSED_SECONDS", "view.KEPT_SECONDS")
        values = (renew, silent, refused, kept)
        return cls(*values, constants=dict(zip(names, (int(renew), *values[1:]), strict=True)))


REAL: Final = Times(renew=50, silent=210, refused=10, kept=60)


class LostNamespace:
    """Namespaces, rights, a model with a pod in each of `a` and `b`, and a gateway."""

    def __init__(self, cluster: Cluster, admin: Api, name: str, folder: Path, times: Times) -> None:
        """Everything is named after `name`."""
        self.cluster, self.admin, self.times = cluster, admin, times
        self.system, self.keys = f"{name}-system", f"{name}-keys"
        self.a, self.b = admin.at(f"{name}-a"), admin.at(f"{name}-b")
        self.folder = folder
        self.secrets = f"/api/v1/namespaces/{self.keys}/secrets"
        self.key = ""
        self._rights = _rendered(cluster, self.system, [self.a.namespace, self.b.namespace], self.keys)
        self._pod = AnsweringPod()

    @contextmanager
    def running(self) -> Iterator[GatewayProcess]:
        """A gateway that is ready, and serves both."""
        namespaces = [self.system, self.keys, self.a.namespace, self.b.namespace]
        with ExitStack() as stack:
            stack.enter_context(self._pod.serving())
            for namespace in namespaces:
                self.admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": namespace}})
                stack.callback(kubectl, self.cluster, "delete", "namespace", namespace, "--wait=false", check=False)
            stack.callback(self._delete_cluster_rights)
            self.give_rights()
            for api in (self.a, self.b):
                self.serve_model(api)
            self.key = make_key(self.admin, "kept", self.secrets, models="*/*")
            with self.gateway("first") as gateway:
                self.asks(gateway, self.a, 200)
                self.asks(gateway, self.b, 200)
                yield gateway

    @contextmanager
    def gateway(self, name: str) -> Iterator[GatewayProcess]:
        """One more gateway that is ready."""
        folder = self.folder / name
        folder.mkdir()
        kubeconfig = kubeconfig_of(self.cluster, folder / "kubeconfig", ACCOUNT, self.system)
        settings = {
            "MOORAGE_GATEWAY_NAMESPACES": f"{self.a.namespace},{self.b.namespace}",
            "MOORAGE_GATEWAY_KEY_NAMESPACE": self.keys,
            "MOORAGE_GATEWAY_HOLD_SECONDS": "1",
        }
        with gateway_with(self.times.constants, kubeconfig, folder, **settings) as gateway:
            yield gateway

    def give_rights(self, *namespaces: str) -> None:
        """Make what the chart makes, in some namespaces only where these are named."""
        objects = [one for one in self._rights if not namespaces or one["metadata"].get("namespace") in namespaces]
        kubectl(self.cluster, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def take_binding(self, namespace: str, name: str = ACCOUNT) -> None:
        """Delete the gateway's RoleBinding, and nothing else."""
        kubectl(self.cluster, "-n", namespace, "delete", "rolebinding", name)

    def serve_model(self, api: Api) -> None:
        """A model with a pod that answers."""
        api.create(model("tiny"))
        becomes_ready(api, "tiny", self._pod.port)

    def user_token(self) -> str:
        """A token of somebody who may use the models of `a`."""
        kubectl(self.cluster, "-n", self.a.namespace, "create", "serviceaccount", "app")
        rights = ["--verb=create", "--resource=inferencemodels.moorage.dev/generate"]
        kubectl(self.cluster, "-n", self.a.namespace, "create", "role", "app", *rights)
        binding = ["--role=app", f"--serviceaccount={self.a.namespace}:app"]
        kubectl(self.cluster, "-n", self.a.namespace, "create", "rolebinding", "app", *binding)
        return token(self.cluster, "app", self.a.namespace)

    def ask(self, gateway: GatewayProcess, api: Api, credential: str = "") -> httpx.Response:
        """Ask the model of a namespace."""
        headers = {"Authorization": f"Bearer {credential or self.key}"}
        body = {"model": f"{api.namespace}/tiny", "prompt": "The capital of France is"}
        return httpx.post(f"{gateway.url}/v1/completions", headers=headers, json=body, trust_env=False, timeout=20)

    def asks(
        self, gateway: GatewayProcess, api: Api, status: int, credential: str = "", seconds: float = BACK_SECONDS
    ) -> None:
        """Ask until it is answered so."""
        eventually(
            lambda: self.ask(gateway, api, credential).status_code == status,
            f"{api.namespace} answers {status}",
            seconds=seconds,
        )

    def stays_well(self, gateway: GatewayProcess, since: float) -> None:
        """Probes succeed and `a` is served for longer than a watch may be silent, counted from `since` (monotonic)."""
        while time.monotonic() < since + self.times.renew + self.times.silent + 5:
            assert probe(gateway, "livez").status_code == 200
            assert probe(gateway, "readyz").status_code == 200
            time.sleep(self.times.silent / 20)

    def _delete_cluster_rights(self) -> None:
        for one in self._rights:
            if "namespace" not in one["metadata"]:
                kubectl(self.cluster, "delete", one["kind"], one["metadata"]["name"], check=False)


def probe(gateway: GatewayProcess, path: str) -> httpx.Response:
    """Ask at the administrative port."""
    return httpx.get(f"http://127.0.0.1:{gateway.admin_port}/{path}", trust_env=False, timeout=10)


def unwatched(gateway: GatewayProcess) -> list[str]:
    """What `/readyz` says of what cannot be watched; it says that all is well."""
    answer = probe(gateway, "readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (200, [])
    found: list[str] = answer.json()["unwatched"]
    return found


def gauge(gateway: GatewayProcess, kind: str, namespace: str) -> float:
    """The metric of a kind and namespace."""
    start = f'moorage_gateway_unwatched{{kind="{kind}",namespace="{namespace}"}} '
    return next(
        float(line.split()[-1]) for line in probe(gateway, "metrics").text.splitlines() if line.startswith(start)
    )


def told(gateway: GatewayProcess, message: str) -> list[tuple[str, str]]:
    """Kind and namespace of each line of the log with that message."""
    return sorted((line["kind"], line["namespace"]) for line in gateway.lines() if line["message"] == message)


def _rendered(cluster: Cluster, system: str, namespaces: list[str], keys: str) -> list[dict[str, Any]]:
    """The rights that the chart gives to a gateway of a release of its own."""
    values = f"watchNamespaces={{{','.join(namespaces)}}},gateway.enabled=true,gateway.keyNamespace={keys}"
    command = [str(cluster.helm), "template", system, str(ROOT / "charts" / "moorage"), "--namespace", system]
    done = subprocess.run([*command, "--set", values], text=True, capture_output=True, check=True)
    found = (one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] in _RBAC)
    return [one for one in found if ACCOUNT in yaml.safe_dump(one)]
