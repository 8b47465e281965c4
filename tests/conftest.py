"""What integration, chaos and e2e tests share; each has a `cluster` and an `api` of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.operator import Audit, kubeconfig_of, kubectl
from tests.truth import Truth, watching


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Api]:
    """An administrator."""
    api = Api(cluster.kubeconfig)
    yield api
    api.close()


@pytest.fixture
def user(cluster: Cluster, api: Api) -> Callable[..., str]:
    """kubectl in the test's namespace."""

    def run(*args: str, stdin: str | None = None, check: bool = True) -> str:
        return kubectl(cluster, "-n", api.namespace, *args, stdin=stdin, check=check)

    return run


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's own rights."""
    return kubeconfig_of(cluster, tmp_path_factory.mktemp("operator") / "kubeconfig")


@pytest.fixture
def audit(cluster: Cluster) -> Audit:
    """The writes that the API server saw."""
    return Audit(cluster.audit_log)


@pytest.fixture
def truth(api: Api) -> Iterator[Truth]:
    """What the statuses of the test's models should say, watched from the beginning of the test to its end."""
    with watching(api) as truth:
        yield truth
        # Shown by pytest's -rP, and when a test fails.
        print(*(lie for lie in truth.longest(3)), sep="\n")
