"""The API server or its store freezes, dies, forgets, or stops talking under a running operator."""

import time
from collections.abc import Callable
from signal import SIGCONT, SIGSTOP

import httpx
import pytest
from urllib3.exceptions import HTTPError

from hack.cluster.host.layout import Layout, Record
from moorage_operator.cluster.lease import LEASE_SECONDS
from tests.chaos.bed import Bed
from tests.chaos.pace import LIMIT, lasting, many
from tests.chaos.world import World
from tests.support.api import ApiRefusedError, Object
from tests.support.fault_proxy import Rule, answer, delay, stale_list
from tests.support.models import model

MODELS = 5
MEMORY_GROWTH = 1.2
RECONNECT_LIMIT = 75.0
BACK_LIMIT = 180.0


@pytest.fixture
def busy(bed: Bed) -> Bed:
    """A bed with a few models that serve."""
    for number in range(MODELS):
        bed.create(f"steady-{number}")
    bed.settles()
    return bed


def is_back(bed: Bed) -> None:
    """The control plane works again; what is measured is how long the operator takes from then on.

    After minutes without the API server its controllers are silent for a minute more, as the API server is after
    minutes without etcd: their pauses between attempts have grown. So a pod that has nothing to do with us must run,
    and models, whose storage has a connection of its own to etcd, be written to.
    """
    bed.cluster.wait_until_ready(timeout=BACK_LIMIT)
    _takes_writes(bed)
    elsewhere = bed.api.at("default")
    template = {"metadata": {"labels": {"app": "probe"}}, "spec": {"containers": [{"name": "probe", "image": "none"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "probe"}}, "template": template}
    elsewhere.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "probe"}, "spec": spec})
    elsewhere.wait("Deployment", "probe", _is_available, what="a pod of another Deployment runs", seconds=BACK_LIMIT)
    elsewhere.delete("Deployment", "probe")


def _takes_writes(bed: Bed) -> None:
    deadline = time.monotonic() + BACK_LIMIT
    dry_run = f"{bed.api.path('InferenceModel')}?dryRun=All"
    while True:
        try:
            bed.api.request("POST", dry_run, json=model("probe"))
            return
        except (HTTPError, ApiRefusedError):
            assert time.monotonic() < deadline, "models cannot be written"


def _has_one_replica(deployment: Object | None) -> bool:
    return bool(deployment and deployment["spec"]["replicas"] == 1)


def _is_available(deployment: Object | None) -> bool:
    return bool(deployment and (deployment.get("status") or {}).get("availableReplicas"))


def recovers(bed: Bed, replicas: int, memory: int) -> None:
    """The operator acts on a change again, and is the same process, no fatter."""
    for number in range(MODELS):
        bed.edit(f"steady-{number}", replicas=replicas)
    bed.converges()
    assert bed.operator.is_alive()
    assert bed.memory() <= memory * MEMORY_GROWTH


@pytest.mark.full_only
def test_fault_04_frozen_api_server(busy: Bed) -> None:
    process, memory = busy.operator.process, busy.memory()
    # Else the controllers would find the nodes' leases expired when they can see them again, and evict the pods.
    parts = ("kube-controller-manager", "kwok", "kube-apiserver")
    for part in parts:
        busy.cluster.signal(part, SIGSTOP)
    try:
        # Longer than the Lease lasts without being renewed.
        assert not busy.operator.ends_within(lasting(300, at_least=LEASE_SECONDS + 1))
        assert "lease" in busy.operator.not_ready()
    finally:
        for part in reversed(parts):
            busy.cluster.signal(part, SIGCONT)
    is_back(busy)
    recovers(busy, 2, memory)
    assert busy.operator.process is process
    busy.invariants_hold()


@pytest.mark.full_only
def test_fault_05_api_server_killed_again_and_again(busy: Bed) -> None:
    process, memory = busy.operator.process, busy.memory()
    times = many(10)
    for number in range(times):
        busy.cluster.kill("kube-apiserver")
        assert not busy.operator.ends_within(lasting(300) / times)
        busy.cluster.start("kube-apiserver")
        is_back(busy)
        recovers(busy, 1 + number % 2, memory)
    assert busy.operator.process is process, "0 exits"
    busy.invariants_hold()


@pytest.mark.full_only
def test_fault_06_etcd_killed(busy: Bed) -> None:
    process, memory = busy.operator.process, busy.memory()
    busy.cluster.kill("etcd")
    assert not busy.operator.ends_within(lasting(300, at_least=3))
    busy.cluster.start("etcd")
    is_back(busy)
    recovers(busy, 2, memory)
    assert busy.operator.process is process
    busy.invariants_hold()


def test_fault_06_leader_changed_in_a_watch(busy: Bed) -> None:
    memory = busy.memory()
    for replicas in (2, 1):
        assert busy.proxy.fail_watches(500, "InternalError") >= 4
        recovers(busy, replicas, memory)
    busy.invariants_hold()


def by_event(bed: Bed) -> None:
    """The watch itself says that it cannot go on."""
    bed.proxy.fail_watches(410, "Expired")


def on_connect(bed: Bed) -> None:
    """The next watches are refused."""
    rule = bed.proxy.add(Rule(answer(410, "Expired"), verbs=["watch"]))
    bed.proxy.cut()
    assert rule.hit.wait(LIMIT)
    bed.proxy.clear()


def by_compaction(bed: Bed) -> None:
    """etcd forgets the past and the API server its cache of it: the answers of 410 are the server's own."""
    record = Record.read(Layout.of(bed.cluster.options.name))
    assert record is not None
    latest = int(bed.api.request("GET", bed.api.path("InferenceModel"))["metadata"]["resourceVersion"])
    body = {"revision": latest, "physical": True}
    httpx.post(f"{record.endpoints.etcd_url}/v3/kv/compaction", json=body, trust_env=False).raise_for_status()
    bed.cluster.kill("kube-apiserver")
    bed.cluster.start("kube-apiserver")
    bed.cluster.wait_until_ready()
    # They are silent since before; how long it takes to find that is fault 08.
    bed.proxy.cut()
    bed.wait_until(lambda _: [] if bed.proxy.expired else ["no watch was told that its version is too old"], LIMIT)


@pytest.mark.parametrize(
    "expire",
    [
        pytest.param(by_event, marks=pytest.mark.full_only),
        on_connect,
        pytest.param(by_compaction, marks=pytest.mark.full_only),
    ],
)
def test_fault_07_version_too_old(bed: Bed, expire: Callable[[Bed], None], garbage_collector: None) -> None:
    count = many(200)
    # Without pods, so that 200 fit; what is watched is the same.
    for number in range(count):
        bed.create(f"old-{number}", replicas=0)
    bed.settles()
    bed.proxy.silence()
    for number in range(count):
        if number % 4 == 0:
            bed.api.delete("InferenceModel", f"old-{number}")
        elif number % 4 == 1:
            bed.edit(f"old-{number}", contextLength=1024)
        elif number % 4 == 2:
            bed.api.delete("Service", f"old-{number}")
            bed.api.patch("Deployment", f"old-{number}", {"spec": {"revisionHistoryLimit": 9}})
    for number in range(count // 4):
        bed.create(f"new-{number}", replicas=0)
    expire(bed)
    bed.converges(LIMIT + count / 10, runs=count)
    for number in range(count):
        deployment = bed.api.get("Deployment", f"old-{number}")
        assert (deployment is None) == (number % 4 == 0)
        assert not deployment or deployment["spec"]["revisionHistoryLimit"] == 2
    bed.invariants_hold()


@pytest.mark.full_only
@pytest.mark.parametrize("resource", ["inferencemodels", "deployments"])
def test_fault_08_silent_watch(busy: Bed, resource: str) -> None:
    assert busy.proxy.silence(resource) == 1
    began = time.monotonic()
    if resource == "inferencemodels":
        busy.edit("steady-0", replicas=2)
    else:
        busy.api.patch("Deployment", "steady-0", {"spec": {"replicas": 3}})
        busy.api.wait("Deployment", "steady-0", _has_one_replica, what="mended", seconds=RECONNECT_LIMIT)
    busy.converges(RECONNECT_LIMIT, since=began)
    busy.invariants_hold()


def test_fault_19_stale_lists(bed: Bed, garbage_collector: None) -> None:
    bed.create("tiny")
    bed.create("gone")
    bed.settles()
    past = World.of(bed.api).version
    bed.edit(replicas=3)
    bed.api.delete("InferenceModel", "gone")
    bed.create("late")
    bed.api.delete("Service", "tiny")
    bed.settles()
    bed.operator.kill()
    before, start = generations(bed), bed.audit.position()
    # An API server that lags behind: it lists the past, and its watches do not get on from there for a while.
    lists = bed.proxy.add(Rule(stale_list(past), verbs=["list"]))
    bed.proxy.add(Rule(delay(lasting(120, at_least=5)), verbs=["watch"]))
    bed.operator.start()
    assert not bed.operator.ends_within(lasting(120, at_least=5))
    assert {"inferencemodels", "deployments", "services", "pods"} <= {call.resource for call in lists.calls}
    assert [write for write in bed.writes(start) if write.startswith("delete")] == []
    assert generations(bed) == before, "nothing was scaled, changed or made anew"
    bed.proxy.clear()
    bed.converges()
    assert generations(bed) == before
    bed.invariants_hold()


def generations(bed: Bed) -> dict[tuple[str, str], tuple[str, int]]:
    """Which objects there are below the models, and how often their specs have changed."""
    below = World.of(bed.api).below.items()
    meta = [(kind, obj["metadata"]) for kind, objects in below for obj in objects]
    return {(kind, m["name"]): (m["uid"], m.get("generation", 0)) for kind, m in meta}
