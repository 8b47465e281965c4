"""One control plane for all scenarios; for each a namespace, a fault proxy and an operator. A table at the end."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from hack.cluster.api import Cluster
from tests.chaos.bed import Bed, kubeconfig_through, proxy_of
from tests.chaos.pace import FEWER, FULL, SHORTENED
from tests.chaos.report import Scenario, table
from tests.support.api import Api
from tests.support.control_plane import control_plane, fresh_namespace
from tests.support.fault_proxy import FaultProxy
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess

_SCENARIOS = pytest.StashKey[list[Scenario]]()
_SCENARIO = pytest.StashKey[Scenario]()
_SECONDS = 2400 if FULL else 240
"""How long a test may take."""


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and keeps a list for the table."""
    config.addinivalue_line("markers", "full_only: cannot be shortened; runs in `make chaos` only")
    config.stash[_SCENARIOS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, in a quick run, what only a full run can do; what needs the garbage collector comes last."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    left_out = [item for item in ours if item.get_closest_marker("full_only")] if not FULL else []
    config.hook.pytest_deselected(items=left_out)
    kept = [item for item in ours if item not in left_out]
    for item in kept:
        item.add_marker(pytest.mark.timeout(_SECONDS))
    kept.sort(key=lambda item: "garbage_collector" in getattr(item, "fixturenames", ()))
    first = items.index(ours[0]) if ours else 0
    others = [item for item in items if item not in ours]
    items[:] = [*others[:first], *kept, *others[first:]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes how a scenario ended."""
    report = yield
    if report.when == "call" and (scenario := item.stash.get(_SCENARIO, None)):
        scenario.result = report.outcome
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table."""
    if scenarios := config.stash[_SCENARIOS]:
        how = "in full" if FULL else f"quick: times / {SHORTENED}, counts / {FEWER}"
        terminalreporter.section(f"fault scenarios ({how})")
        for line in table(scenarios):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The control plane, of its own, for scenarios kill its parts."""
    with control_plane("chaos") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def garbage_collector(admin: Api) -> None:
    """Kubernetes' garbage collector knows InferenceModels, which it looks for every 30 s only."""
    owner = admin.create(model("collected", replicas=0))
    reference = {key: owner[key] for key in ("apiVersion", "kind")} | {
        key: owner["metadata"][key] for key in ("name", "uid")
    }
    admin.create({"kind": "ConfigMap", "metadata": {"name": "collected", "ownerReferences": [reference]}})
    admin.delete("InferenceModel", "collected")
    admin.wait("ConfigMap", "collected", lambda found: found is None, what="collected", seconds=60)


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """The test's line in the table."""
    scenario = Scenario(request.node.name)
    request.node.stash[_SCENARIO] = scenario
    request.config.stash[_SCENARIOS].append(scenario)
    return scenario


@pytest.fixture
def api(admin: Api) -> Iterator[Api]:
    """An administrator in a fresh namespace, past the proxy."""
    with fresh_namespace(admin) as api:
        yield api


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    """A proxy before the API server that lets everything through as yet."""
    with proxy_of(cluster) as proxy:
        yield proxy


@pytest.fixture
def operator(proxy: FaultProxy, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A running operator behind the proxy."""
    kubeconfig = kubeconfig_through(proxy, operator_kubeconfig, tmp_path / "kubeconfig")
    operator = OperatorProcess(kubeconfig, tmp_path / "operator.log")
    try:
        operator.start()
        yield operator
    finally:
        operator.kill()


@pytest.fixture
def bed(
    api: Api, audit: Audit, proxy: FaultProxy, operator: OperatorProcess, scenario: Scenario, *, cluster: Cluster
) -> Bed:
    """All of it."""
    return Bed(cluster, api, audit, proxy, operator, scenario)
