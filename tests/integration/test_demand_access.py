"""Who may follow the use of models, with a real API server: the operator with its token, and nobody else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from hack.cluster.api import Cluster
from moorage_common.demand import decode
from moorage_gateway.demand import MOST_FOLLOWERS
from tests.support.api import Api, ApiRefusedError, reason
from tests.support.gateway import GatewayProcess, gateway_process
from tests.support.models import model
from tests.support.operator import OperatorProcess, kubeconfig_of
from tests.support.people import RBAC
from tests.support.sleeping import GATEWAYS, announced
from tests.support.tokens import expired, operator_token, token
from tests.support.waiting import eventually

ROLE = "moorage-operator-demand"


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def gateway(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[GatewayProcess]:
    """A gateway with the rights of the chart."""
    kubeconfig = kubeconfig_of(cluster, tmp_path / "kubeconfig", "moorage-gateway")
    with gateway_process(kubeconfig, tmp_path, MOORAGE_GATEWAY_WORKERS=request.param) as process:
        yield process


@contextmanager
def demand(gateway: GatewayProcess, shown: str | None) -> Iterator[httpx.Response]:
    """An answer that has begun."""
    headers = {"Authorization": f"Bearer {shown}"} if shown is not None else {}
    url = f"http://127.0.0.1:{gateway.admin_port}/demand"
    with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=10) as answer:
        yield answer


def refused(gateway: GatewayProcess, shown: str | None) -> int:
    """The status of a refusal, which says nothing else."""
    with demand(gateway, shown) as answer:
        assert answer.read() == b""
        return answer.status_code


STRANGERS: dict[str, tuple[int, Callable[[Cluster, str], str | None]]] = {
    "no token": (401, lambda _cluster, _namespace: None),
    "what is none": (401, lambda _cluster, _namespace: "eyJhbGciOiJub25lIn0.e30."),
    "for the API server": (401, lambda cluster, _: token(cluster, "moorage-operator", audience=None)),
    "for somebody else": (401, lambda cluster, _: token(cluster, "moorage-operator", audience="vault")),
    "expired": (401, lambda cluster, _: expired(cluster, token(cluster, "moorage-operator"))),
    "without the right": (403, lambda cluster, namespace: token(cluster, "default", namespace)),
    "of the gateway itself": (403, lambda cluster, _: token(cluster, "moorage-gateway")),
}


def test_strangers_are_refused_and_hold_no_place(gateway: GatewayProcess, cluster: Cluster, api: Api) -> None:
    shown = {who: make(cluster, api.namespace) for who, (_, make) in STRANGERS.items()}
    for _ in range(3):
        assert {who: refused(gateway, one) for who, one in shown.items()} == {
            who: status for who, (status, _) in STRANGERS.items()
        }
    good = token(cluster, "moorage-operator")
    with ExitStack() as stack:
        # Whoever drops the lines has closed the connection.
        followers = [stack.enter_context(demand(gateway, good)).iter_lines() for _ in range(MOST_FOLLOWERS)]
        assert all(decode(next(lines).encode()).gateway for lines in followers)
        with demand(gateway, good) as answer:
            assert answer.status_code == 503
    log = gateway.log.read_text()
    assert not [who for who, one in shown.items() if one and one in log]
    assert good not in log
    assert f"system:serviceaccount:{api.namespace}:default" in log


def test_whoever_is_given_the_right_may_follow(gateway: GatewayProcess, cluster: Cluster, api: Api) -> None:
    shown = token(cluster, "default", api.namespace)
    assert refused(gateway, shown) == 403
    path, name = f"{RBAC}/clusterrolebindings", f"{api.namespace}-follows"
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": api.namespace}],
    }
    api.request("POST", path, json=binding)

    def let_in() -> bool:
        with demand(gateway, shown) as answer:
            return answer.status_code == 200

    try:
        eventually(let_in, "the right is known")
    finally:
        api.request("DELETE", f"{path}/{name}")
    eventually(lambda: not let_in(), "the right is gone", seconds=20)


def test_the_operators_token_is_nothing_to_the_api_server(cluster: Cluster, admin: Api) -> None:
    with pytest.raises(ApiRefusedError) as refusal:
        as_operator = {"Authorization": f"Bearer {token(cluster, 'moorage-operator')}"}
        # An administrator's certificate would do instead.
        with httpx.Client(base_url=admin.server, verify=False, trust_env=False) as client:  # noqa: S501
            answer = client.get("/api/v1/namespaces", headers=as_operator)
            raise ApiRefusedError(answer.status_code, answer.text)
    assert refusal.value.status == 401


def test_an_operator_that_is_refused_says_so_and_follows_as_soon_as_its_token_is_good(
    cluster: Cluster, api: Api, admin: Api, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    file = operator_token(cluster, tmp_path / "token")
    settings = {"MOORAGE_GATEWAY_SERVICE": GATEWAYS, "MOORAGE_GATEWAY_TOKEN_FILE": str(file)}
    operator = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log", **settings)
    operator.start()
    gateways = kubeconfig_of(cluster, tmp_path / "kubeconfig", "moorage-gateway")
    everywhere = {"MOORAGE_GATEWAY_HOST": "0.0.0.0"}  # noqa: S104 - a slice has an address of the host

    def ready(*reasons: str) -> None:
        wanted = f"Ready says {reasons}"
        api.wait("InferenceModel", "tiny", lambda im: reason(im) in reasons, what=wanted, seconds=30)

    def counted(state: str) -> float:
        page = httpx.get(f"http://127.0.0.1:{operator.port}/metrics", trust_env=False).text
        line = next(line for line in page.splitlines() if line.startswith(f'moorage_gateways{{state="{state}"}}'))
        return float(line.split()[-1])

    try:
        with gateway_process(gateways, tmp_path, **everywhere) as gateway:
            with announced(admin, f"{api.namespace}-g", gateway.admin_port):
                scaling = {"minReplicas": 0, "maxReplicas": 1, "idleTimeout": "2s"}
                api.create(model("tiny", nodeSelector={"moorage.test/node": "none"}, scaling=scaling))
                ready("Sleeping")
                assert counted("connected") == 1
            file.write_text(expired(cluster, file.read_text()))
            with announced(admin, f"{api.namespace}-g", gateway.admin_port):
                eventually(lambda: counted("refused") == 1, "it is refused")
                # Nobody tells the operator who waits, so a request would wake nobody.
                ready("NoGateway")
                operator_token(cluster, file)
                ready("Sleeping")
                assert (counted("connected"), counted("refused")) == (1, 0)
    finally:
        operator.stop()
    told = [line for line in operator.log.read_text().splitlines() if "does not report the use of models" in line]
    assert [("status 401" in line, '"warning"' in line) for line in told if "401" in line] == [(True, True)]
    assert operator.errors() == []
