"""The process of the management API: it may die while models are served on, and ends with the gateway."""

from pathlib import Path

import httpx
import psutil
import pytest

from hack.cluster.api import Cluster
from tests.integration.management.conftest import MakeManager
from tests.support.api import Api
from tests.support.gateway import GatewayProcess, gateway_process
from tests.support.operator import kubeconfig_of
from tests.support.waiting import eventually


def child_of(gateway: GatewayProcess) -> psutil.Process | None:
    """The process of the management API."""
    children = psutil.Process(gateway.process.pid).children(recursive=True)
    return next((child for child in children if "moorage_gateway.manage" in child.cmdline()), None)


def status(address: str) -> int:
    return httpx.get(address, trust_env=False).status_code


def test_it_comes_back_when_it_was_killed_and_readiness_does_not_mind(
    gateway: GatewayProcess, manager: MakeManager, api: Api
) -> None:
    viewer = manager("moorage-view")
    child = child_of(gateway)
    assert child
    child.kill()
    child.wait(5)
    down = viewer.ask("GET", f"/api/models?namespace={api.namespace}")
    assert (down.status_code, down.headers["retry-after"]) == (503, "1")
    assert status(f"http://127.0.0.1:{gateway.admin_port}/readyz") == 200
    assert status(f"{gateway.url}/healthz") == 200
    eventually(lambda: viewer.ask("GET", f"/api/models?namespace={api.namespace}").status_code == 200, "it is back")
    again = child_of(gateway)
    assert again
    assert again.pid != child.pid


def test_it_ends_with_the_gateway_and_its_socket_is_nobody_elses(cluster: Cluster, tmp_path: Path) -> None:
    kubeconfig = kubeconfig_of(cluster, tmp_path / "kubeconfig", "moorage-gateway")
    socket = tmp_path / "manage.sock"
    with gateway_process(kubeconfig, tmp_path, MOORAGE_GATEWAY_MANAGEMENT_SOCKET=str(socket)) as gateway:
        eventually(lambda: status(f"{gateway.url}/docs") == 200, "it answers")
        child = child_of(gateway)
        assert child
        assert socket.stat().st_mode & 0o777 == 0o600
        memory = (child.memory_info().rss / 2**20, psutil.Process(gateway.process.pid).memory_info().rss / 2**20)
        print("management API {:.0f} MiB, data plane {:.0f} MiB".format(*memory))
        assert memory[0] < 120
    assert not psutil.pid_exists(child.pid)


def test_without_the_setting_there_is_none(cluster: Cluster, tmp_path: Path) -> None:
    kubeconfig = kubeconfig_of(cluster, tmp_path / "kubeconfig", "moorage-gateway")
    with gateway_process(kubeconfig, tmp_path) as gateway:
        assert child_of(gateway) is None
        assert [status(f"{gateway.url}{path}") for path in ("/docs", "/openapi.json", "/api/models")] == [401] * 3


@pytest.mark.parametrize("path", ["/docs", "/api/models"])
def test_no_answer_says_what_it_was_made_with(gateway: GatewayProcess, path: str) -> None:
    headers = httpx.get(f"{gateway.url}{path}", trust_env=False).headers
    assert not {"server", "x-powered-by", "x-moorage-go-on"} & set(headers)
