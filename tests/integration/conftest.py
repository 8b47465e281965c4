"""One control plane for all integration tests, a namespace of its own for each test, and the operator as a process."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster.api import Cluster, ClusterOptions, down, up
from tests.support.api import Api
from tests.support.operator import Audit, OperatorProcess, install, kubeconfig_of_operator

CLUSTER = os.environ.get("MOORAGE_TEST_CLUSTER", "integration")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real API server with controllers and scheduler, and a fake node with 8 GPUs; Moorage's chart is applied."""
    down(CLUSTER)
    cluster = up(ClusterOptions(name=CLUSTER, control_plane_only=True, gpus=8))
    try:
        install(cluster)
        yield cluster
    finally:
        # To look at a cluster after a failure; the next run begins anew.
        if not os.environ.get("MOORAGE_KEEP_CLUSTER"):
            down(CLUSTER)


@pytest.fixture
def api(admin: Api) -> Iterator[Api]:
    """An administrator in a fresh namespace."""
    name = f"test-{next(_numbers)}"
    admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}})
    yield admin.at(name)
    admin.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's own rights."""
    return kubeconfig_of_operator(cluster, tmp_path_factory.mktemp("operator") / "kubeconfig")


@pytest.fixture
def operator(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A running operator; that it logged no error is part of every test."""
    process = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log")
    process.start()
    yield process
    process.stop()
    assert process.errors() == []


@pytest.fixture
def audit(cluster: Cluster) -> Audit:
    """The writes that the API server saw."""
    return Audit(cluster.audit_log)
