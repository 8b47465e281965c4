"""The operator as the only writer of replicas: from what gateways tell to the Deployment, and through restarts."""

import asyncio
import json
from typing import Any

import pytest

from moorage_common.demand import News, Use
from moorage_operator.cluster.kinds import INFERENCE_MODELS, PODS
from moorage_operator.settings import Settings
from tests.unit.operator.support import Object, by_type, live_pod, summary
from tests.unit.operator.test_operator import Bed, running
from tests.unit.operator.virtual_time import in_virtual_time, settle

GATEWAY = ("10.0.0.1", 9090)
SLEEPER: dict[str, Any] = {
    "scaling": {"minReplicas": 0, "maxReplicas": 3, "idleTimeout": "1m", "scaleDownDelay": "20s"}
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_IMAGES", json.dumps({"llamacpp/cpu": "runtime:1"}))
    monkeypatch.setenv("MOORAGE_FACTS", "false")
    assert not Settings().gateway_service


def slices(*hosts: str) -> Object:
    """The EndpointSlice of the gateways' Service."""
    return {
        "metadata": {"uid": "slice", "name": "gateways-1", "namespace": "moorage-system", "resourceVersion": "1"},
        "ports": [{"name": "admin", "port": 9090}],
        "endpoints": [{"addresses": [host]} for host in hosts],
    }


def gateways(bed: Bed, *hosts: str) -> None:
    bed.operator.gateways.event("ADDED", slices(*hosts))


def tell(bed: Bed, use: Use | None, gateway: str = "", name: str = "team-a/one") -> None:
    """A gateway has said how the model `one` is used."""
    concerned = bed.operator._view.usage.update(GATEWAY, News(gateway, {name: use}))
    bed.operator._use_changed(concerned)


def replicas(bed: Bed) -> int:
    return int(bed.kube.objects["Deployment", "one"]["spec"]["replicas"])


def writes(bed: Bed) -> int:
    """All but the heartbeats of the leader."""
    return len([kind for kind in bed.kube.written() if kind != "Lease"])


def reads(bed: Bed) -> int:
    return len([kind for kind, _ in bed.kube.reads if kind != "Lease"])


@in_virtual_time
async def test_it_goes_to_sleep_and_is_woken_and_the_spec_is_never_touched() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", **SLEEPER)
        await settle()
        assert replicas(bed) == 1, "a new model shows that it starts"
        tell(bed, Use(), "gateway-1")
        await asyncio.sleep(59)
        assert replicas(bed) == 1
        await asyncio.sleep(2)
        assert replicas(bed) == 0
        assert summary(bed.status("one") or {}) == {
            "phase": "Sleeping",
            "Ready": "True Sleeping",
            "Scheduled": "False Sleeping",
            "ModelLoaded": "False Unloaded",
            "Progressing": "True RollingOut",  # no controller of Deployments is here
            "Reconciling": "True RollingOut",
        }
        tell(bed, Use(held=1))
        await settle()
        assert replicas(bed) == 1, "told at once"
        assert by_type(bed.status("one") or {})["Ready"]["reason"] == "Starting"
        assert bed.kube.objects["InferenceModel", "one"]["spec"]["scaling"] == SLEEPER["scaling"]
        assert {kind for kind, _ in bed.kube.objects} == {
            *("InferenceModel", "Deployment", "Service", "PodDisruptionBudget", "Lease", "Event")
        }
        told = [(one["reason"], one["message"]) for (kind, _), one in bed.kube.objects.items() if kind == "Event"]
        assert told == [
            (
                "Sleeping",
                "Scaled to zero after 1m without requests; the next request through the gateway wakes the model",
            ),
            ("Woken", "A request through the gateway waits for the model, or scaling.minReplicas was raised"),
        ]


@in_virtual_time
async def test_the_time_that_it_loads_is_no_idle_time() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", **SLEEPER)
        await settle()
        bed.operator.event(PODS, "ADDED", live_pod("one-1", model_name="one", model_uid="uid-of-one"))
        tell(bed, Use(), "gateway-1")
        await asyncio.sleep(150)
        assert replicas(bed) == 1
        ready = live_pod("one-1", model_name="one", model_uid="uid-of-one", version=2, ready=True)
        bed.operator.event(PODS, "MODIFIED", ready)
        await asyncio.sleep(59)
        assert replicas(bed) == 1
        await asyncio.sleep(2)
        assert replicas(bed) == 0


@in_virtual_time
async def test_one_that_fails_or_finds_no_room_goes_to_sleep_all_the_same() -> None:
    failing = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}
    for fields in ({"container": failing}, {"node": None}):
        async with running() as bed:
            gateways(bed, GATEWAY[0])
            bed.add("one", **SLEEPER)
            await settle()
            bed.operator.event(PODS, "ADDED", live_pod("one-1", model_name="one", model_uid="uid-of-one", **fields))
            tell(bed, Use(), "gateway-1")
            await asyncio.sleep(62)
            assert replicas(bed) == 0


@in_virtual_time
async def test_use_that_changes_nothing_is_neither_read_nor_written() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", **SLEEPER)
        await settle()
        tell(bed, Use(), "gateway-1")
        await asyncio.sleep(1)
        before = writes(bed), reads(bed)
        for number in range(500):
            tell(bed, Use(in_flight=1 + number % 4))
            await asyncio.sleep(0.1)
        assert (writes(bed), reads(bed)) == before
        tell(bed, Use(in_flight=9))
        await settle()
        assert replicas(bed) == 3


@in_virtual_time
async def test_an_operator_that_is_restarted_leaves_what_sleeps_asleep_and_writes_nothing() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", **SLEEPER)
        await settle()
        tell(bed, Use(), "gateway-1")
        await asyncio.sleep(61)
        assert replicas(bed) == 0
        kube = bed.kube
        before = writes(bed)
    async with running(synced=False, kube=kube) as bed:
        gateways(bed, GATEWAY[0])
        await bed.list()
        bed.operator.event(INFERENCE_MODELS, None, kube.objects["InferenceModel", "one"])
        await settle()
        assert replicas(bed) == 0
        assert writes(bed) == before
        tell(bed, Use(held=2), "gateway-1")
        await settle()
        assert replicas(bed) == 1


@in_virtual_time
async def test_a_deployment_that_somebody_else_has_set_to_none_is_not_asleep() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", **SLEEPER)
        await settle()
        kube = bed.kube
        kube.objects["Deployment", "one"]["spec"]["replicas"] = 0
    async with running(synced=False, kube=kube) as bed:
        gateways(bed, GATEWAY[0])
        await bed.list()
        bed.operator.event(INFERENCE_MODELS, None, kube.objects["InferenceModel", "one"])
        await settle()
        assert replicas(bed) == 1


@in_virtual_time
async def test_a_model_that_was_stopped_starts_when_it_is_resumed() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", suspend=True, **SLEEPER)
        await settle()
        tell(bed, Use(), "gateway-1")
        assert replicas(bed) == 0
        assert by_type(bed.status("one") or {})["Ready"]["reason"] == "Stopped"
        tell(bed, Use(held=1))
        await asyncio.sleep(100)
        assert replicas(bed) == 0, "nobody wakes what somebody has stopped"
        tell(bed, Use(idle=0.0))
        bed.add("one", "MODIFIED", **SLEEPER)
        await settle()
        assert replicas(bed) == 1
        await asyncio.sleep(59)
        assert replicas(bed) == 1


@in_virtual_time
async def test_without_a_gateway_nothing_is_put_to_sleep_and_what_sleeps_says_so() -> None:
    async with running() as bed:
        bed.add("one", **SLEEPER)
        await asyncio.sleep(1000)
        assert replicas(bed) == 1
        gateways(bed, GATEWAY[0])
        tell(bed, Use(), "gateway-1")
        await asyncio.sleep(61)
        assert replicas(bed) == 0
        gateways(bed)
        await asyncio.sleep(1)
        assert replicas(bed) == 0
        ready = by_type(bed.status("one") or {})["Ready"]
        assert (ready["status"], ready["reason"]) == ("False", "NoGateway")
        gateways(bed, GATEWAY[0])
        await asyncio.sleep(1)
        assert by_type(bed.status("one") or {})["Ready"]["reason"] == "Sleeping"


@in_virtual_time
async def test_a_gateway_that_is_not_reached_keeps_it_awake() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0], "10.0.0.2")
        bed.add("one", **SLEEPER)
        await settle()
        tell(bed, Use(), "gateway-1")
        await asyncio.sleep(1000)
        assert replicas(bed) == 1
        gateways(bed, GATEWAY[0])
        await asyncio.sleep(1)
        assert replicas(bed) == 0


@in_virtual_time
async def test_with_scaling_taken_out_the_spec_says_the_number_again() -> None:
    async with running() as bed:
        gateways(bed, GATEWAY[0])
        bed.add("one", **SLEEPER)
        await settle()
        tell(bed, Use(in_flight=12), "gateway-1")
        await asyncio.sleep(1)
        assert replicas(bed) == 3
        bed.add("one", "MODIFIED", replicas=2)
        await asyncio.sleep(1)
        assert replicas(bed) == 2
