"""A gateway with the management API, and people with the rights of the chart's roles in the test's namespace."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.gateway import GatewayProcess, gateway_process
from tests.support.manage import Manager, token_of
from tests.support.operator import kubeconfig_of
from tests.support.waiting import eventually


@pytest.fixture(scope="package")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with the rights of the chart, and its management API, which answers."""
    folder = tmp_path_factory.mktemp("managed")
    kubeconfig = kubeconfig_of(cluster, folder / "kubeconfig", "moorage-gateway")
    socket = folder / "manage.sock"
    with gateway_process(kubeconfig, folder, MOORAGE_GATEWAY_MANAGEMENT_SOCKET=str(socket)) as process:
        eventually(lambda: httpx.get(f"{process.url}/openapi.json", trust_env=False).status_code == 200, "the API")
        yield process


MakeManager = Callable[..., Manager]


@pytest.fixture
def manager(gateway: GatewayProcess, api: Api) -> Iterator[MakeManager]:
    """Makes somebody with roles in the test's namespace: `manager("moorage-edit")`."""
    with ExitStack() as stack:

        def make(*roles: str, token: str = "", everywhere: bool = False) -> Manager:
            name = "-".join(["who", *roles])
            token = token or token_of(api, name, *roles, everywhere=everywhere)
            client = httpx.Client(
                base_url=gateway.url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
            )
            made = Manager(stack.enter_context(client), api.namespace)
            if roles:
                address = f"/api/models?namespace={api.namespace}"
                eventually(lambda: made.ask("GET", address).status_code == 200, f"{roles} are at work", seconds=10)
            return made

        yield make


@pytest.fixture
def editor(manager: MakeManager) -> Manager:
    """Somebody who may edit models."""
    return manager("moorage-edit")
