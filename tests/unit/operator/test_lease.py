"""Who may work: the Lease is taken, kept, lost and given up; never do two replicas believe that it is theirs."""

import asyncio
from typing import Any

import pytest
from kubernetes.aio.dynamic import Resource

from moorage_operator.cluster.errors import ConflictError, ThrottledError, UnavailableError
from moorage_operator.cluster.lease import LEASE_SECONDS, RELEASE_SECONDS, RENEW_DEADLINE, RENEW_SECONDS, Elector
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.virtual_time import in_virtual_time, now

LEASE = ("Lease", "operator")


class SlowKube(FakeKube):
    """An API server whose answers to writes come late."""

    delay = 0.0

    async def replace(self, resource: Resource, manifest: dict[str, Any]) -> dict[str, Any]:
        """The write is done at once, and told later."""
        answer = await super().replace(resource, manifest)
        await asyncio.sleep(self.delay)
        return answer


def elector(kube: FakeKube, identity: str = "a") -> Elector:
    """A replica of the operator, by the clock of the loop."""
    return Elector(kube, "moorage-system", "operator", identity, clock=now)


def spec(kube: FakeKube) -> dict[str, Any]:
    """What the Lease says."""
    found: dict[str, Any] = kube.objects[LEASE]["spec"]
    return found


def cut_off(kube: FakeKube) -> None:
    """The API server is away."""
    kube.refusals[("get", "Lease")] = UnavailableError("no route to host")


async def leader(kube: FakeKube, identity: str = "a") -> Elector:
    """A replica that leads."""
    replica = elector(kube, identity)
    await replica.acquire()
    return replica


@in_virtual_time
async def test_a_lease_that_does_not_exist_is_made_and_ours_at_once() -> None:
    kube = FakeKube()
    replica = elector(kube)
    assert not replica.valid
    await replica.acquire()
    assert now() == 0
    assert (replica.leading, replica.valid, replica.contact_at) == (True, True, 0)
    assert spec(kube)["holderIdentity"] == "a"
    assert spec(kube)["leaseDurationSeconds"] == LEASE_SECONDS
    assert spec(kube)["leaseTransitions"] == 0


@in_virtual_time
async def test_a_lease_is_not_taken_before_it_expires_and_then_soon() -> None:
    kube = FakeKube()
    await leader(kube)
    await asyncio.sleep(100)  # that it is old says nothing: only what we saw ourselves counts
    other = elector(kube, "b")
    await other.acquire()
    assert 100 + LEASE_SECONDS <= now() <= 100 + LEASE_SECONDS + RENEW_SECONDS
    assert spec(kube)["holderIdentity"] == "b"
    assert spec(kube)["leaseTransitions"] == 1


@in_virtual_time
async def test_a_lease_that_is_renewed_is_never_taken() -> None:
    kube = FakeKube()
    first = await leader(kube)
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(elector(kube, "b").acquire())
    await asyncio.sleep(3600)
    assert first.valid
    assert not waiting.done()
    assert not holding.done()
    waiting.cancel()
    holding.cancel()
    await asyncio.gather(waiting, holding, return_exceptions=True)


@in_virtual_time
async def test_the_same_replica_started_again_need_not_wait() -> None:
    kube = FakeKube()
    await leader(kube)
    acquired = spec(kube)["acquireTime"]
    await asyncio.sleep(1)
    again = await leader(kube)
    assert now() == 1
    assert again.valid
    assert (spec(kube)["acquireTime"], spec(kube)["leaseTransitions"]) == (acquired, 0)


@in_virtual_time
async def test_fault_09_a_server_that_asks_to_wait_is_not_asked_for_the_lease_meanwhile() -> None:
    kube = FakeKube()
    kube.refusals[("get", "Lease")] = ThrottledError("TooManyRequests", "later", 7)
    replica = elector(kube)
    acquiring = asyncio.create_task(replica.acquire())
    await asyncio.sleep(6)
    assert len([target for target in kube.reads if target[0] == "Lease"]) == 1
    await asyncio.sleep(2)
    assert len([target for target in kube.reads if target[0] == "Lease"]) == 2
    await leader_after(kube, acquiring)
    assert now() == pytest.approx(14)


@in_virtual_time
async def test_of_two_that_are_equally_fast_one_waits() -> None:
    kube = FakeKube()
    kube.refusals[("create", "Lease")] = ConflictError(409, "AlreadyExists", "b was faster")
    replica = elector(kube)
    acquiring = asyncio.create_task(replica.acquire())
    await asyncio.sleep(1)
    assert not replica.leading
    await leader_after(kube, acquiring)
    assert replica.valid


async def leader_after(kube: FakeKube, acquiring: "asyncio.Task[None]") -> None:
    """Let the refusals end, and the replica lead."""
    kube.refusals.clear()
    await acquiring


@in_virtual_time
async def test_a_leader_that_is_cut_off_stops_before_another_may_begin() -> None:
    kube = FakeKube()
    first = await leader(kube)
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(RENEW_SECONDS * 3 + 0.5)
    renewed_at = RENEW_SECONDS * 3
    cut_off(kube)
    await asyncio.sleep(renewed_at + RENEW_DEADLINE - now() - 0.1)
    assert first.valid
    await asyncio.sleep(0.2)
    assert not first.valid
    await holding
    assert not first.leading
    assert RENEW_DEADLINE < LEASE_SECONDS


@in_virtual_time
async def test_a_leader_leads_again_when_the_api_server_is_back() -> None:
    kube = FakeKube()
    first = await leader(kube)
    cut_off(kube)
    await first.hold()
    acquiring = asyncio.create_task(first.acquire())
    await asyncio.sleep(100)
    assert not first.leading
    await leader_after(kube, acquiring)
    assert first.valid


@in_virtual_time
async def test_a_short_cut_does_not_end_the_lead() -> None:
    kube = FakeKube()
    first = await leader(kube)
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(3)
    cut_off(kube)
    await asyncio.sleep(6)
    kube.refusals.clear()
    await asyncio.sleep(60)
    assert first.valid
    assert not holding.done()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


@in_virtual_time
async def test_a_leader_that_sees_another_holder_stops_at_once() -> None:
    kube = FakeKube()
    first = await leader(kube)
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(RENEW_SECONDS + 0.1)
    kube.put("Lease", {**kube.objects[LEASE], "spec": {**spec(kube), "holderIdentity": "b", "renewTime": "later"}})
    await holding
    assert now() == pytest.approx(2 * RENEW_SECONDS)
    assert not first.leading
    assert not first.valid
    assert spec(kube)["holderIdentity"] == "b"


@in_virtual_time
async def test_a_process_that_was_frozen_may_not_write_before_it_has_looked() -> None:
    kube = FakeKube()
    first = await leader(kube)
    await asyncio.sleep(RENEW_DEADLINE)  # nobody renews: the process does not run
    assert first.leading
    assert not first.valid
    assert first.remaining <= 0


@in_virtual_time
async def test_a_renewal_whose_answer_comes_late_counts_from_when_it_was_asked_for() -> None:
    # Others count from the renewal itself, which may be as old as our request.
    kube = SlowKube()
    first = await leader(kube)
    kube.delay = 8
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(RENEW_SECONDS + kube.delay + 0.1)
    assert first.remaining == pytest.approx(RENEW_DEADLINE - kube.delay - 0.1)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


@in_virtual_time
async def test_a_lease_that_was_taken_too_slowly_is_not_valid() -> None:
    kube = SlowKube()
    await leader(kube)
    kube.delay = RENEW_DEADLINE + 1
    again = await leader(kube)
    assert not again.valid


@in_virtual_time
async def test_a_lease_that_is_given_up_is_free_at_once() -> None:
    kube = FakeKube()
    first = await leader(kube)
    await first.release()
    assert (first.leading, first.valid) == (False, False)
    assert spec(kube)["holderIdentity"] == ""
    began = now()
    await leader(kube, "b")
    assert now() == began


@in_virtual_time
async def test_a_replica_gives_up_only_its_own_lease() -> None:
    kube = FakeKube()
    first = await leader(kube)
    kube.put("Lease", {**kube.objects[LEASE], "spec": {**spec(kube), "holderIdentity": "b"}})
    await first.release()
    assert spec(kube)["holderIdentity"] == "b"
    writes = len(kube.writes)
    await elector(kube, "c").release()
    assert len(kube.writes) == writes


@in_virtual_time
async def test_giving_up_does_not_fail_when_the_api_server_is_away() -> None:
    kube = FakeKube()
    first = await leader(kube)
    cut_off(kube)
    await first.release()
    assert not first.leading


@in_virtual_time
async def test_contact_with_the_api_server_is_noted_without_leading_too() -> None:
    kube = FakeKube()
    await leader(kube)
    other = elector(kube, "b")
    assert other.contact_at is None
    acquiring = asyncio.create_task(other.acquire())
    await asyncio.sleep(RENEW_SECONDS * 2 + 0.1)
    assert other.contact_at == pytest.approx(RENEW_SECONDS * 2)
    cut_off(kube)
    await asyncio.sleep(60)
    assert other.contact_at == pytest.approx(RENEW_SECONDS * 2)
    acquiring.cancel()
    await asyncio.gather(acquiring, return_exceptions=True)


@in_virtual_time
async def test_of_many_replicas_that_come_and_go_no_two_may_write_at_a_time() -> None:
    kube = SlowKube()
    kube.delay = 0.3
    replicas = [elector(kube, name) for name in "abc"]

    async def life(replica: Elector) -> None:
        while True:
            await replica.acquire()
            await replica.hold()

    tasks = [asyncio.create_task(life(replica)) for replica in replicas]
    led = set()
    for second in range(400):
        await asyncio.sleep(0.5)
        valid = [replica for replica in replicas if replica.valid]
        assert len(valid) <= 1
        led.update(valid)
        if second % 100 == 50:
            cut_off(kube)
        if second % 100 == 90:
            kube.refusals.clear()
    assert led
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@in_virtual_time
async def test_fault_09_who_lost_the_lease_by_refusals_asks_no_sooner_than_it_was_told() -> None:
    kube = FakeKube()
    replica = await leader(kube)
    kube.refusals[("get", "Lease")] = ThrottledError("TooManyRequests", "later", 10)
    await replica.hold()
    asked = len(kube.reads)
    again = asyncio.create_task(replica.acquire())
    await asyncio.sleep(9)
    assert len(kube.reads) == asked
    await asyncio.sleep(2)
    assert len(kube.reads) == asked + 1
    again.cancel()


@in_virtual_time
async def test_an_api_server_that_does_not_answer_does_not_keep_a_process_from_ending() -> None:
    kube = SlowKube()
    first = await leader(kube)
    kube.delay = 60
    began = now()
    await first.release()
    assert now() - began <= RELEASE_SECONDS
    assert not first.leading
