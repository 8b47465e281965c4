"""Whom liveness asks: only what gets no answer at all counts, be it a yes or a no."""

from moorage_gateway.kube.errors import ForbiddenError, NotFoundError
from moorage_gateway.kube.resources import INFERENCE_MODELS, SECRETS
from moorage_gateway.kube.watch_health import Watched, WatchHealth

MODELS, KEYS = Watched(INFERENCE_MODELS, None), Watched(SECRETS, "keys")
FORBIDDEN = ForbiddenError(403, "Forbidden", "no")


class Bed:
    def __init__(self) -> None:
        self.now = 100.0
        self.health = WatchHealth([MODELS, KEYS], lambda: self.now)


def test_the_most_silent_watch_counts() -> None:
    bed = Bed()
    bed.now += 30
    assert bed.health.silent_seconds() == 30
    bed.health.heard(MODELS)
    assert bed.health.silent_seconds() == 30
    bed.now += 1
    bed.health.heard(KEYS)
    assert bed.health.silent_seconds() == 1


def test_cluster_01_a_refusal_is_an_answer() -> None:
    bed = Bed()
    for _ in range(100):
        bed.now += 5
        bed.health.heard(MODELS)
        bed.health.refused(KEYS, FORBIDDEN)
    assert bed.health.silent_seconds() == 0
    # The API server says nothing any more, neither yes nor no.
    bed.now += 211
    bed.health.heard(MODELS)
    assert bed.health.silent_seconds() == 211


def test_a_refusal_is_new_once_and_ends_when_a_watch_begins() -> None:
    bed = Bed()
    assert bed.health.refused(KEYS, FORBIDDEN) == 0
    bed.now += 5
    assert bed.health.refused(KEYS, NotFoundError(404, "NotFound", "gone")) == 5
    assert bed.health.unwatched() == {KEYS: "404 NotFound"}
    assert str(KEYS) == "Secret in namespace keys"
    assert str(MODELS) == "InferenceModel in all namespaces"
    # A list says nothing of the right to watch.
    bed.health.heard(KEYS)
    assert list(bed.health.unwatched()) == [KEYS]
    assert bed.health.begun(KEYS)
    assert bed.health.unwatched() == {}
    assert not bed.health.begun(KEYS)
    assert bed.health.refused(KEYS, FORBIDDEN) == 0
