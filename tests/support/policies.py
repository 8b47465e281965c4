"""What the API server forbids: quotas, and the policies of the chart without a release; waiting until they work."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hack.cluster.api import Cluster
from tests.support.api import Api, ApiRefusedError, Object
from tests.support.models import model
from tests.support.operator import ROOT, kubectl
from tests.support.people import person

SECONDS = 20.0


def until_refused(attempt: Callable[[], Any], status: int = 422) -> str:
    """What the API server says once it refuses; it takes a new policy in about a second later."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            attempt()
        except ApiRefusedError as refused:
            if refused.status == status:
                return str(refused)
            raise
        assert time.monotonic() < deadline, "it is not refused"
        time.sleep(0.05)  # what policies the API server has taken in, nothing tells


def wait_until_enforced(api: Api) -> None:
    """Returns once the policies of the chart are at work."""
    somebody = person(api, "policy-probe", "moorage-edit")
    wanted = model("probe", runtimeImage="registry.example/x:1", source={"uri": "oci://registry.example/x:1"})
    until_refused(lambda: somebody.create(wanted, dry_run=True), 403)
    deadline = time.monotonic() + SECONDS
    while not warning_of(api, wanted):
        assert time.monotonic() < deadline, "there is no warning"
        time.sleep(0.05)  # as above


def warning_of(api: Api, wanted: Object) -> str | None:
    """What the API server warns of when it takes an object; it does not keep it."""
    answer = api.answer("POST", api.path(wanted["kind"]), json=wanted, params={"dryRun": "All"})
    return answer.headers.get("Warning")


def until_taken(attempt: Callable[[], Any]) -> None:
    """Returns once the API server refuses no longer; it forgets a policy about a second after that has gone."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            attempt()
        except ApiRefusedError as refused:
            assert time.monotonic() < deadline, f"it is still refused: {refused}"
            time.sleep(0.05)  # as above
        else:
            return


@contextmanager
def chart_part(
    cluster: Cluster, release: str, template: str, *settings: str, gone: Callable[[], Any]
) -> Iterator[None]:
    """One file of the chart, as another release with other values makes it; at the end it goes, and `gone` is taken."""
    command = [str(cluster.helm), "template", release, str(ROOT / "charts" / "moorage"), "--show-only", template]
    command += [f"--set={setting}" for setting in settings]
    objects = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    kubectl(cluster, "apply", "-f", "-", stdin=objects)
    try:
        yield
    finally:
        kubectl(cluster, "delete", "-f", "-", stdin=objects)
        until_taken(gone)


def quota(api: Api, name: str, spec: Object) -> None:
    """Makes a ResourceQuota. Admission goes by its status, so before that is written nothing is refused."""
    api.request("POST", api.path("ResourceQuota"), json={"metadata": {"name": name}, "spec": spec})
    api.wait("ResourceQuota", name, lambda made: (made or {}).get("status", {}).get("hard"), what="a quota in force")
