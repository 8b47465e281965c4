"""When the operator is alive and ready, and with which reasons it is not."""

from moorage_operator.errors import UnavailableError
from moorage_operator.handlers import WATCHED, WatchHealth
from moorage_operator.health import SILENT_LIMIT, Health, WriteHealth
from moorage_operator.lease import LEASE_SECONDS, Elector
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.support import Clock

EVERYWHERE = (None,)
PODS = "/api/v1/pods"


class Bed:
    """The health of an operator that watches, holds the Lease and writes; a test takes one of it away."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watches = WatchHealth(EVERYWHERE, self.clock)
        for path in self.watches.requests:
            self.watches.answered(path)
        self.elector = Elector(FakeKube(), "moorage-system", "operator", "a", clock=self.clock)
        self.elector.contact_at = self.clock()
        self.writes = WriteHealth()
        self.synced = True
        self.health = Health(self.watches, self.elector, self.writes, synced=lambda: self.synced, clock=self.clock)


def test_an_operator_that_watches_and_writes_is_alive_and_ready() -> None:
    bed = Bed()
    assert bed.health.not_alive() == []
    assert bed.health.not_ready() == []


def test_one_silent_watch_is_enough_not_to_be_alive() -> None:
    bed = Bed()
    bed.clock.advance(SILENT_LIMIT + 1)
    for path in bed.watches.requests:
        if path != PODS:
            bed.watches.answered(path)
    bed.elector.contact_at = bed.clock()
    assert bed.health.not_alive() == ["a watch has been silent for 211 s"]
    assert bed.health.not_ready() == bed.health.not_alive()
    bed.watches.answered(PODS)
    assert bed.health.not_alive() == []


def test_silence_up_to_the_limit_is_usual() -> None:
    bed = Bed()
    bed.clock.advance(SILENT_LIMIT)
    assert bed.health.not_alive() == []


def test_a_watch_that_was_never_answered_is_named_and_counts_from_the_start() -> None:
    clock = Clock()
    watches = WatchHealth(EVERYWHERE, clock)
    assert len(watches.missing()) == len(WATCHED) + 1  # the nodes
    clock.advance(30)
    for path in watches.requests:
        if path != PODS:
            watches.answered(path)
    assert watches.missing() == [PODS]
    assert watches.silent_seconds() == 30
    bed = Bed()
    bed.health = Health(watches, bed.elector, bed.writes, synced=lambda: True, clock=bed.clock)
    assert bed.health.not_ready() == [f"not watching {PODS}"]


def test_each_namespace_has_watches_of_its_own() -> None:
    watches = WatchHealth(("team-a", "team-b"), Clock())
    assert len(watches.requests) == 2 * len(WATCHED)
    watches.answered("/apis/moorage.dev/v1alpha1/namespaces/team-a/inferencemodels")
    assert "/apis/moorage.dev/v1alpha1/namespaces/team-a/inferencemodels" not in watches.missing()
    assert "/apis/moorage.dev/v1alpha1/namespaces/team-b/inferencemodels" in watches.missing()


def test_an_answer_to_something_else_is_no_sign_of_a_watch() -> None:
    bed = Bed()
    bed.watches.answered("/apis/coordination.k8s.io/v1/namespaces/moorage-system/leases/operator")
    bed.clock.advance(SILENT_LIMIT + 1)
    assert bed.health.not_alive() != []
    for path in bed.watches.requests:
        bed.watches.answered(path)
    assert bed.watches.silent_seconds() == 0


def test_not_ready_before_everything_was_listed() -> None:
    bed = Bed()
    bed.synced = False
    assert bed.health.not_ready() == ["not every kind has been listed yet"]
    assert bed.health.not_alive() == []


def test_not_ready_without_contact_about_the_lease() -> None:
    bed = Bed()
    bed.elector.contact_at = None
    assert bed.health.not_ready() == ["the lease could not be read or renewed"]
    bed.elector.contact_at = bed.clock() - LEASE_SECONDS
    assert bed.health.not_ready() == []
    bed.clock.advance(1)
    assert bed.health.not_ready() == ["the lease could not be read or renewed"]


def test_a_replica_that_waits_for_the_lease_is_ready() -> None:
    bed = Bed()
    assert not bed.elector.leading
    assert bed.health.not_ready() == []


def test_not_ready_while_writes_are_refused_and_ready_again_after_one_that_is_not() -> None:
    bed = Bed()
    bed.writes.refused("one", UnavailableError("503 leader changed"))
    assert bed.health.not_ready() == ["the API server refuses writes: 503 leader changed"]
    assert bed.health.not_alive() == []
    bed.writes.succeeded("one")
    assert bed.health.not_ready() == []


def test_what_goes_through_for_one_model_says_nothing_of_another() -> None:
    writes = WriteHealth()
    writes.refused("one", UnavailableError("403"))
    writes.refused("two", UnavailableError("503"))
    writes.succeeded("three")
    assert writes.refusal == "403 (and 1 more)"
    writes.succeeded("one")
    assert writes.refusal == "503"
    writes.succeeded("two")
    assert writes.refusal is None


def test_a_long_refusal_is_cut() -> None:
    writes = WriteHealth()
    writes.refused("one", UnavailableError("x" * 10_000))
    assert writes.refusal is not None
    assert len(writes.refusal) == 500


def test_all_reasons_are_told_together() -> None:
    bed = Bed()
    bed.synced = False
    bed.elector.contact_at = None
    bed.writes.refused("one", UnavailableError("away"))
    bed.clock.advance(SILENT_LIMIT + 1)
    assert len(bed.health.not_ready()) == 4
