"""When the operator is alive and ready, and with which reasons it is not."""

from kubernetes.aio.dynamic import Resource
from prometheus_client import REGISTRY

from moorage_operator.cluster.cache.scope import NAMESPACED, Scope
from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.errors import UnavailableError
from moorage_operator.cluster.kinds import INFERENCE_MODELS, PODS
from moorage_operator.cluster.lease import LEASE_SECONDS, Elector
from moorage_operator.health import SILENT_LIMIT, Health, WriteHealth
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.support import Clock


class Bed:
    """The health of an operator that watches, holds the Lease and writes; a test takes one of it away."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watches = Watches(Scope().watched(), self.clock)
        self.hear()
        self.elector = Elector(FakeKube(), "moorage-system", "operator", "a", clock=self.clock)
        self.elector.contact_at = self.clock()
        self.writes = WriteHealth()
        self.synced = True
        self.health = Health(self.watches, self.elector, self.writes, synced=lambda: self.synced, clock=self.clock)

    def hear(self, *, but: Resource | None = None) -> None:
        """All watches say something."""
        hear(self.watches, but=but)


def hear(heard: Watches, *, but: Resource | None = None) -> None:
    """All watches but one say something."""
    for resource, namespace in Scope().watched():
        if resource is not but:
            heard.answered((resource, namespace))


def test_an_operator_that_watches_and_writes_is_alive_and_ready() -> None:
    bed = Bed()
    assert bed.health.not_alive() == []
    assert bed.health.not_ready() == []


def test_one_silent_watch_is_enough_not_to_be_alive() -> None:
    bed = Bed()
    bed.clock.advance(SILENT_LIMIT + 1)
    bed.hear(but=PODS)
    bed.elector.contact_at = bed.clock()
    assert bed.health.not_alive() == ["a watch has been silent for 211 s"]
    assert bed.health.not_ready() == bed.health.not_alive()
    bed.watches.answered((PODS, None))
    assert bed.health.not_alive() == []


def test_silence_up_to_the_limit_is_usual() -> None:
    bed = Bed()
    bed.clock.advance(SILENT_LIMIT)
    assert bed.health.not_alive() == []


def test_a_watch_that_was_never_answered_is_named_and_counts_from_the_start() -> None:
    clock = Clock()
    heard = Watches(Scope().watched(), clock)
    assert len(heard.missing()) == len(NAMESPACED) + 1  # the nodes
    clock.advance(30)
    hear(heard, but=PODS)
    assert heard.missing() == ["/api/v1/pods"]
    assert heard.silent_seconds() == 30
    bed = Bed()
    bed.health = Health(heard, bed.elector, bed.writes, synced=lambda: True, clock=bed.clock)
    assert bed.health.not_ready() == ["not watching /api/v1/pods"]


def test_each_namespace_has_watches_of_its_own() -> None:
    heard = Watches(Scope(("team-a", "team-b")).watched(), Clock())
    assert len(heard.missing()) == 2 * len(NAMESPACED)
    heard.answered((INFERENCE_MODELS, "team-a"))
    assert "/apis/moorage.dev/v1alpha1/namespaces/team-a/inferencemodels" not in heard.missing()
    assert "/apis/moorage.dev/v1alpha1/namespaces/team-b/inferencemodels" in heard.missing()


def refuse(watches: Watches, *resources: Resource) -> None:
    """The API server does not let us watch them."""
    for resource in resources:
        watches.refused((resource, None), "403: pods is forbidden")


def test_what_may_not_be_watched_is_named_and_is_no_reason_not_to_be_ready() -> None:
    bed = Bed()
    refuse(bed.watches, PODS)
    assert bed.health.not_ready() == []
    assert bed.health.unwatched() == ["cannot watch pods in all namespaces: 403: pods is forbidden"]
    bed.clock.advance(SILENT_LIMIT + 1)
    bed.elector.contact_at = bed.clock()
    bed.hear(but=PODS)
    refuse(bed.watches, PODS)
    assert bed.health.not_alive() == []
    assert bed.watches.answered((PODS, None))
    assert bed.health.unwatched() == []


def test_not_ready_if_nothing_at_all_may_be_watched() -> None:
    bed = Bed()
    refuse(bed.watches, *(resource for resource, _ in Scope().watched()))
    assert bed.health.not_ready() == ["nothing can be watched"]


def test_each_refusal_is_a_metric_for_as_long_as_it_lasts() -> None:
    watches = Watches(Scope(("team-a",)).watched(), Clock())
    labels = {"resource": "pods", "namespace": "team-a"}
    assert watches.refused((PODS, "team-a"), "403")
    assert not watches.refused((PODS, "team-a"), "403")
    assert REGISTRY.get_sample_value("moorage_unwatched", labels) == 1
    assert watches.answered((PODS, "team-a"))
    assert REGISTRY.get_sample_value("moorage_unwatched", labels) is None


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
