"""A few models that somebody has forged or bloated stand among many good ones, which must not notice."""

import time
from collections.abc import Callable

from tests.chaos.bed import SMALL, Bed
from tests.chaos.pace import many
from tests.chaos.world import World, serving
from tests.support.api import Object
from tests.support.models import model

SLOWER = 1.2
NOISE = 2.0
"""Seconds that a run on a busy machine may take longer for reasons of its own."""

FORGED: dict[str, Object] = {
    "kopf": {
        "kopf.zalando.org/last-handled-configuration": "{not json",
        "kopf.dev/progress": '{"fn": {"retries": -1}}',
    },
    "ours": {"moorage.dev/applied-hash": "0" * 16, "kubectl.kubernetes.io/last-applied-configuration": "[]"},
    "max-size": {f"example.org/{number}": "x" * 25_000 for number in range(10)},
    "unicode": {"example.org/name": "\u202e\u0000 ﷽ 𝕞𝕠𝕕𝕖𝕝 \U0001f480".replace("\u0000", "")},
}
FINALIZER = "example.org/never-removed"


def poison(bed: Bed, number: int) -> None:
    """One bad model; the kinds take turns."""
    kinds: list[Callable[[str], Object]] = [
        *(lambda name, a=annotations: annotated(name, a) for annotations in FORGED.values()),
        longest,
        labelled,
    ]
    name = f"poison-{number}"
    bed.api.create(kinds[number % len(kinds)](name))
    if number % len(kinds) == 0:
        bed.api.patch(
            "InferenceModel", name, {"status": {"phase": "Failed", "conditions": [], "replicas": 9}}, "status"
        )


def annotated(name: str, annotations: Object) -> Object:
    manifest = model(name, replicas=0, **SMALL)
    manifest["metadata"]["annotations"] = annotations
    return manifest


def longest(name: str) -> Object:
    """Every text as long as the schema lets it be."""
    folder = "a" * 20
    uri = f"pvc://{'c' * 253}/" + f"{folder}/" * 36
    return model(name, replicas=0, servedName="s" * 128, source={"uri": uri.rstrip("/")}, **SMALL)


def labelled(name: str) -> Object:
    """It bears the labels of a child."""
    manifest = model(name, replicas=0, **SMALL)
    manifest["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "moorage", "moorage.dev/model": "good-0"}
    manifest["metadata"]["finalizers"] = [FINALIZER]
    return manifest


def test_fault_21_poison_among_good_models(bed: Bed, garbage_collector: None) -> None:
    clean = timed(bed, 0)
    process = bed.operator.process
    poisoned = timed(bed, many(10))
    bed.scenario.note(f"clean {clean:.1f} s, with poison {poisoned:.1f} s")
    assert poisoned <= SLOWER * clean + NOISE
    assert bed.operator.process is process
    bed.invariants_hold()


def timed(bed: Bed, bad: int) -> float:
    """Seconds from the first model's creation until all good ones have what they need."""
    count = many(200)
    began = time.monotonic()
    for number in range(bad):
        poison(bed, number)
    for number in range(count):
        bed.create(f"good-{number}", replicas=0)
    bed.wait_until(lambda world: [m["metadata"]["name"] for m in good(world) if not serving(m)], 60 + count)
    seconds = time.monotonic() - began
    bed.settles()
    bed.scenario.converged(seconds, count)
    if not bad:
        for number in range(count):
            bed.api.delete("InferenceModel", f"good-{number}")
        bed.settles()
    return seconds


def good(world: World) -> list[Object]:
    return [found for found in world.models if found["metadata"]["name"].startswith("good-")]
