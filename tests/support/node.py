"""One real cluster for all e2e tests: real kubelet, real images, the chart installed by helm.

A conftest that takes these fixtures has one of its own, `images`: what the cluster runs, by the names of `hack.images`.
"""

import itertools
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from hack import demo
from hack.cluster.api import Cluster, load_images
from hack.images.api import Image
from hack.models import model_path
from tests.support.api import Api
from tests.support.clusters import own_cluster
from tests.support.operator import NAMESPACE, kubectl

_numbers = itertools.count(1)
_OUTCOME = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def cluster(images: dict[str, Image]) -> Iterator[Cluster]:
    """The tests' own cluster with Moorage on it."""
    with own_cluster("e2e") as cluster:
        load_images(cluster.options.name, [image.archive for image in images.values()])
        demo.install(cluster, images)
        kubectl(cluster, "api-resources", "--api-group=moorage.dev")
        yield cluster


@pytest.fixture
def api(admin: Api, cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Api]:
    """An administrator in a fresh namespace that enforces Pod Security `restricted`."""
    name = f"e2e-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name, "labels": labels}})
    yield admin.at(name)
    if request.node.stash.get(_OUTCOME, False):
        _dump(cluster, name)
    admin.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes a failure, so that the fixture can show the cluster's side of it."""
    report = yield
    if report.when == "call":
        item.stash[_OUTCOME] = report.failed
    return report


def _dump(cluster: Cluster, namespace: str) -> None:
    for command in (
        ("get", "im,deployments,pods,services", "-o", "wide"),
        ("describe", "im"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("logs", "--selector=app.kubernetes.io/managed-by=moorage", "--tail=50", "--prefix"),
    ):
        print(f"--- kubectl {' '.join(command)}\n{kubectl(cluster, '-n', namespace, *command, check=False)}")
    print(kubectl(cluster, "-n", NAMESPACE, "logs", "deployment/moorage-operator", "--tail=100", check=False))


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The file of SmolLM2."""
    return model_path("smollm2")


@pytest.fixture
def claim(api: Api, tmp_path: Path) -> Iterator[Path]:
    """A folder of this host that is the claim `models` in the test's namespace."""
    folder = tmp_path / "claim"
    folder.mkdir()
    for parent in (folder, *folder.parents):
        # The runtime is nobody in particular, and must reach the folder through all of them.
        if parent.is_relative_to(tmp_path.parents[1]):
            parent.chmod(parent.stat().st_mode | 0o055)
    name, size = f"models-{api.namespace}", {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {**common, "capacity": size, "hostPath": {"path": str(folder)}}
    api.request("POST", "/api/v1/persistentvolumes", json={"metadata": {"name": name}, "spec": volume})
    spec = {**common, "volumeName": name, "resources": {"requests": size}}
    path = f"/api/v1/namespaces/{api.namespace}/persistentvolumeclaims"
    api.request("POST", path, json={"metadata": {"name": "models"}, "spec": spec})
    yield folder
    api.request("DELETE", f"/api/v1/persistentvolumes/{name}")


@pytest.fixture
def post(user: Callable[..., str], api: Api) -> Callable[[str, str, dict[str, object]], str]:
    """Posts JSON to a model's Service from a pod in the cluster, and returns the body of the answer."""
    program = (
        "import sys, urllib.request as u; "
        "r = u.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/json'}); "
        "print(u.urlopen(r, timeout=60).read().decode())"
    )

    def send(model: str, route: str, body: dict[str, object]) -> str:
        url = f"http://{model}.{api.namespace}.svc/v1/{route}"
        pods = api.find("Pod", f"moorage.dev/model={model}")
        ready = next(p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"])
        # By the Service's name and address, from inside the cluster; the pod that asks is only the place.
        return user("exec", ready, "--", "python3", "-c", program, url, json.dumps(body))

    return send
