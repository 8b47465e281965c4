"""One control plane for all integration tests, a namespace of its own for each test, and the operator as a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.control_plane import control_plane, fresh_namespace
from tests.support.operator import OperatorProcess
from tests.support.policies import wait_until_enforced


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The control plane."""
    with control_plane("integration") as cluster:
        yield cluster


@pytest.fixture
def api(admin: Api) -> Iterator[Api]:
    """An administrator in a fresh namespace."""
    with fresh_namespace(admin) as api:
        yield api


@pytest.fixture
def policies(api: Api) -> None:
    """The chart's admission policies are at work."""
    wait_until_enforced(api)


@pytest.fixture
def operator(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """A running operator; that it logged no error is part of every test."""
    process = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log")
    process.start()
    yield process
    process.stop()
    assert process.errors() == []
