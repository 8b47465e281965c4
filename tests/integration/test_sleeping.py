"""Sleeping models with a real API server, gateways and operators as processes: nobody but the operator writes.

The models ask for a node that there is not, so that nobody runs their pods; those that answer are threads of the test.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, ApiRefusedError, Object, condition, reason
from tests.support.gateway import SECRETS, GatewayProcess, gateway_process, make_key
from tests.support.models import model
from tests.support.operator import NAMESPACE, Audit, OperatorProcess, described, kubeconfig_of, kubectl
from tests.support.sleeping import GATEWAYS, AnsweringPod, Asking, announced, becomes_ready
from tests.support.tokens import operator_token
from tests.support.waiting import eventually
from tests.truth import Truth

GATEWAY_USER = f"system:serviceaccount:{NAMESPACE}:moorage-gateway"
NOWHERE = {"moorage.test/node": "none"}
SLEEPER: dict[str, Any] = {"minReplicas": 0, "maxReplicas": 3, "idleTimeout": "2s", "scaleDownDelay": "1s"}


@dataclass
class Bed:
    """An operator that follows gateways, and a key for the models of the test's namespace."""

    api: Api
    admin: Api
    operator: OperatorProcess
    key: str
    kubeconfig: Path
    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def gateway(self, name: str) -> GatewayProcess:
        """One more gateway."""
        folder = self.folder / name
        folder.mkdir()
        # The operator comes by the address that is in the slice.
        everywhere = {"MOORAGE_GATEWAY_HOST": "0.0.0.0"}  # noqa: S104
        process = self.stack.enter_context(gateway_process(self.kubeconfig, folder, **everywhere))
        self.stack.enter_context(announced(self.admin, f"{self.api.namespace}-{name}", process.admin_port))
        return process

    def sleeper(self, name: str = "tiny", **scaling: Any) -> Object:
        """A model that sleeps after two seconds, if it may."""
        wanted = {**SLEEPER, **scaling}
        if wanted["minReplicas"]:
            del wanted["idleTimeout"]
        return self.api.create(model(name, nodeSelector=NOWHERE, scaling=wanted))

    def replicas(self, name: str = "tiny") -> int:
        deployment = self.api.get("Deployment", name)
        return -1 if deployment is None else int(deployment["spec"]["replicas"])

    def wait(self, name: str, *reasons: str, seconds: float = 15) -> Object:
        """The model once Ready says one of these reasons."""
        wanted = f"Ready says {reasons}"
        found = self.api.wait("InferenceModel", name, lambda im: reason(im) in reasons, what=wanted, seconds=seconds)
        assert found is not None
        return found

    def wait_for_replicas(self, number: int, name: str = "tiny") -> None:
        wanted = f"{number} replicas"
        self.api.wait(
            "Deployment",
            name,
            lambda one: (one or {"spec": {"replicas": -1}})["spec"]["replicas"] == number,
            what=wanted,
        )

    def knows(self, gateway: GatewayProcess, name: str = "tiny") -> None:
        """Return once a gateway has seen a model."""
        headers = {"Authorization": f"Bearer {self.key}"}
        wanted = f"{self.api.namespace}/{name}"

        def listed() -> bool:
            answer = httpx.get(f"{gateway.url}/v1/models", headers=headers, trust_env=False)
            return answer.status_code == 200 and wanted in [entry["id"] for entry in answer.json()["data"]]

        eventually(listed, "the gateway knows the model")


@pytest.fixture
def bed(cluster: Cluster, admin: Api, api: Api, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Bed]:
    """Nothing is there yet but the operator."""
    token_file = str(operator_token(cluster, tmp_path / "token"))
    follows = {"MOORAGE_GATEWAY_SERVICE": GATEWAYS, "MOORAGE_GATEWAY_TOKEN_FILE": token_file}
    operator = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log", **follows)
    key = make_key(admin, f"{api.namespace}-s", models=f"{api.namespace}/*")
    kubeconfig = kubeconfig_of(cluster, tmp_path / "kubeconfig", "moorage-gateway")
    operator.start()
    bed = Bed(api, admin, operator, key, kubeconfig, tmp_path)
    with bed.stack:
        yield bed
    operator.stop()
    admin.request("DELETE", f"{SECRETS}/key-{api.namespace}-s")
    assert operator.errors() == []


def test_it_sleeps_is_woken_by_a_request_answers_it_and_sleeps_again(
    bed: Bed, audit: Audit, truth: Truth, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = bed.gateway("one"), bed.gateway("two")
    bed.sleeper()
    asleep = bed.wait("tiny", "Sleeping")
    assert condition(asleep, "Ready")["status"] == "True"
    assert (asleep["status"]["phase"], asleep["status"]["readyOfDesired"]) == ("Sleeping", "0/0")
    for gateway in (one, two):
        bed.knows(gateway)
    began, since = datetime.now(UTC), audit.position()
    with AnsweringPod().serving() as pod:
        first = Asking(two.url, bed.key, "tiny")
        bed.wait_for_replicas(1)
        waking = bed.wait("tiny", "Unschedulable", "Starting")
        assert condition(waking, "Ready")["status"] == "False"
        assert not first.answers
        ready = time.monotonic()
        becomes_ready(bed.api, "tiny", pod.port)
        assert first.join() == [200]
        answered = time.monotonic()
        # When the API server had done it; a test that watches learns of it later.
        scaled = next(write for write in audit.writes(since) if write["objectRef"]["resource"] == "deployments")
        woken = (datetime.fromisoformat(scaled["stageTimestamp"]) - began).total_seconds()
        with capsys.disabled():
            print(f"\nhold and wake adds: request to Deployment {1000 * woken:.0f} ms, ", end="")
            print(f"slice of a ready pod to answer {1000 * (answered - ready):.0f} ms (writes of both included)")
        becomes_ready(bed.api, "tiny", None)
        bed.wait_for_replicas(0)
    assert bed.wait("tiny", "Sleeping")["metadata"]["generation"] == 1, "the spec is nobody's but its author's"
    truth.hold()
    # Of the operator's writes none is to the spec, and of the gateways there is none at all.
    written = described(audit.writes(since))
    assert not [write for write in written if "inferencemodels" in write and "/status" not in write]
    assert described(audit.writes(since, GATEWAY_USER)) == []


def test_cluster_03_a_request_is_held_while_no_node_has_the_gpus_that_one_had(bed: Bed, truth: Truth) -> None:
    gateway = bed.gateway("one")
    # Cordoned, so that nobody runs the pod.
    name, offer = f"pool-of-{bed.api.namespace}", {"moorage.test/pool": "1", "cpu": "1", "memory": "1Gi", "pods": "1"}
    node = {"metadata": {"name": name}, "spec": {"unschedulable": True}}
    bed.api.request("POST", "/api/v1/nodes", json={**node, "status": {"capacity": offer, "allocatable": offer}})
    gpu = {"count": 1, "resourceName": "moorage.test/pool"}
    bed.api.create(model("tiny", gpu=gpu, scaling=SLEEPER))
    bed.wait("tiny", "WaitingForGPU", "Unschedulable")
    truth.hold()
    bed.api.request("DELETE", f"/api/v1/nodes/{name}")
    bed.wait("tiny", "Sleeping")
    bed.knows(gateway)
    with AnsweringPod().serving() as pod:
        first = Asking(gateway.url, bed.key, "tiny")
        waiting = bed.wait("tiny", "WaitingForGPU", "NoSuchResource")
        told = condition(waiting, "Ready")["message"]
        assert "no node has so many now, but an autoscaler may add one" in told
        truth.hold()
        # No node has ever had these, so nothing is held; and what comes later on the same watch is known by then.
        bed.api.create(model("never", gpu={"count": 1, "resourceName": "moorage.test/none"}))
        bed.wait("never", "NoSuchResource")
        eventually(lambda: Asking(gateway.url, bed.key, "never").join() == [503], "503 of what nobody can bring")
        assert not first.answers
        becomes_ready(bed.api, "tiny", pod.port)
        assert first.join() == [200]


def test_requests_write_nothing(bed: Bed, audit: Audit) -> None:
    gateway = bed.gateway("one")
    bed.sleeper(idleTimeout="1m")
    bed.knows(gateway)
    with AnsweringPod().serving() as pod:
        becomes_ready(bed.api, "tiny", pod.port)
        assert Asking(gateway.url, bed.key, "tiny").join() == [200]
        bed.wait("tiny", "Unschedulable")
        since = last_write(audit)
        for _ in range(10):
            assert Asking(gateway.url, bed.key, "tiny", 2).join() == [200, 200]
        assert pod.requests == 21
    assert writes(bed, audit, since) == []
    assert described(audit.writes(since, GATEWAY_USER)) == []


def writes(bed: Bed, audit: Audit, since: int) -> list[str]:
    """What the operator wrote in the test's namespace: what is left of another test's is on its way out meanwhile."""
    return [write for write in described(audit.writes(since)) if bed.api.namespace in write]


def last_write(audit: Audit) -> int:
    """The end of the log, once nobody has written for two seconds: what is new has then been told."""
    changed, position = time.monotonic(), audit.position()
    while time.monotonic() - changed < 2:
        if written := described(audit.writes(position)):
            assert len(written) < 100, "somebody writes all the time"
            changed, position = time.monotonic(), audit.position()
        time.sleep(0.1)  # that nothing happens has no event
    return position


def test_an_operator_that_is_restarted_finds_it_asleep_and_wakes_it_for_who_waits(bed: Bed, audit: Audit) -> None:
    gateway = bed.gateway("one")
    bed.sleeper()
    bed.api.wait("InferenceModel", "tiny", _sleeps_and_is_complete, what="all is written")
    bed.operator.kill()
    since, said = audit.position(), len(bed.operator.log.read_text())
    bed.operator.start()
    # It takes its Lease over, and then has a look at everything.
    eventually(lambda: '"reconciling"' in bed.operator.log.read_text()[said:], "it leads", seconds=40)
    assert bed.replicas() == 0
    assert writes(bed, audit, since) == []
    bed.operator.kill()
    bed.knows(gateway)
    with AnsweringPod().serving() as pod:
        waiting = Asking(gateway.url, bed.key, "tiny")
        bed.operator.start()
        bed.api.wait("Deployment", "tiny", _has_replicas, what="it is woken", seconds=40)
        becomes_ready(bed.api, "tiny", pod.port)
        assert waiting.join() == [200]


def _sleeps_and_is_complete(im: Object | None) -> bool:
    return (reason(im), reason(im, "Progressing")) == ("Sleeping", "Complete")


def _has_replicas(deployment: Object | None) -> bool:
    return bool(deployment and deployment["spec"]["replicas"] == 1)


def test_a_gateway_that_is_killed_or_not_reached_keeps_it_awake_and_a_new_one_wakes_it(bed: Bed) -> None:
    bed.gateway("one")
    with announced(bed.admin, f"{bed.api.namespace}-gone", 9):
        bed.sleeper()
        bed.wait_for_replicas(1)
        # Twice the idle time, and nothing may happen.
        time.sleep(5)
        assert bed.replicas() == 1
    bed.wait("tiny", "Sleeping")
    other = bed.gateway("another")
    bed.knows(other)
    with AnsweringPod().serving() as pod:
        waiting = Asking(other.url, bed.key, "tiny")
        bed.wait_for_replicas(1)
        becomes_ready(bed.api, "tiny", pod.port)
        assert waiting.join() == [200]


def test_replicas_follow_the_requests_of_all_gateways_up_and_down(bed: Bed) -> None:
    gateways = [bed.gateway("one"), bed.gateway("two")]
    bed.sleeper(minReplicas=1, targetConcurrency=2, idleTimeout=None)
    for gateway in gateways:
        bed.knows(gateway)
    with AnsweringPod().serving() as pod:
        pod.may_answer.clear()
        becomes_ready(bed.api, "tiny", pod.port)
        asking = [Asking(gateway.url, bed.key, "tiny", 2) for gateway in gateways]
        bed.wait_for_replicas(2)
        asking += [Asking(gateway.url, bed.key, "tiny", 2) for gateway in gateways]
        bed.wait_for_replicas(3)
        pod.may_answer.set()
        assert [one.join() for one in asking] == [[200, 200]] * 4
        bed.wait_for_replicas(1)


def test_without_a_gateway_it_stays_awake_and_one_that_sleeps_says_that_nobody_would_wake_it(bed: Bed) -> None:
    with bed.stack:
        bed.gateway("one")
        bed.sleeper()
        bed.wait("tiny", "Sleeping")
    assert condition(bed.wait("tiny", "NoGateway"), "Ready")["status"] == "False"
    bed.sleeper("other")
    bed.wait_for_replicas(1, "other")
    time.sleep(4)
    assert bed.replicas("other") == 1


def refusal(api: Api, scaling: dict[str, Any], **spec: Any) -> str:
    with pytest.raises(ApiRefusedError) as refused:
        api.create(model("bad", scaling=scaling, **spec))
    assert refused.value.status == 422
    return str(refused.value)


@pytest.mark.parametrize(
    ("scaling", "spec", "words"),
    [
        ({"minReplicas": 3, "maxReplicas": 2}, {}, ("spec.scaling.maxReplicas", "at least minReplicas")),
        (
            {"minReplicas": 1, "idleTimeout": "30m"},
            {},
            ("spec.scaling.idleTimeout", "never sleeps", "minReplicas to 0"),
        ),
        ({"idleTimeout": "30m"}, {}, ("spec.scaling.idleTimeout", "never sleeps")),
        ({"minReplicas": -1}, {}, ("spec.scaling.minReplicas", "-1")),
        ({"maxReplicas": 0}, {}, ("spec.scaling.maxReplicas", "0")),
        ({"maxReplicas": 101}, {}, ("spec.scaling.maxReplicas", "101")),
        ({"targetConcurrency": 0}, {}, ("spec.scaling.targetConcurrency", "0")),
        ({"minReplicas": 0, "idleTimeout": "30 minutes"}, {}, ("spec.scaling.idleTimeout", "30 minutes", "1h30m")),
        ({"minReplicas": 0, "idleTimeout": "0s"}, {}, ("spec.scaling.idleTimeout", "0s", "720h")),
        ({"minReplicas": 0, "idleTimeout": "721h"}, {}, ("spec.scaling.idleTimeout", "721h", "720h")),
        ({"scaleDownDelay": ""}, {}, ("spec.scaling.scaleDownDelay", "1h30m")),
        ({"maxReplicas": 2}, {"replicas": 2}, ("spec.replicas", "leave replicas out")),
        ({"maxReplicas": 2}, {"replicas": 0}, ("spec.replicas", "suspend stops the model")),
    ],
)
def test_bad_input_28_29_30_scaling(
    api: Api, scaling: dict[str, Any], spec: dict[str, Any], words: tuple[str, ...]
) -> None:
    text = refusal(api, scaling, **spec)
    assert not [word for word in words if word not in text], text


def test_bad_input_28_who_scales_by_hand_is_told_that_the_operator_does(cluster: Cluster, api: Api) -> None:
    api.create(model("tiny", scaling=SLEEPER))
    said = kubectl(cluster, "-n", api.namespace, "scale", "im/tiny", "--replicas=3", check=False)
    assert "with scaling the operator chooses the number" in said
