"""Computes the figures of the preemption benchmark from its measurements, with their goals. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hack.bench._goals import Goal
from hack.bench._harness import ratio
from hack.bench._operator_result import quantile
from hack.bench._preemption_sides import Arrival

GOALS = {
    "running_vs_scheduler": Goal("≤", 1.5),
    "told_ms_p50": Goal("≤", 1000),
    "told_ms_max": Goal("≤", 1000),
}


@dataclass
class Figures:
    """The arrivals of one side, in the order they were measured; CPU seconds of the operator for each of ours."""

    arrivals: list[Arrival] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def running(self) -> list[float]:
        """Seconds from the POST to the ready pod."""
        return [arrival.running for arrival in self.arrivals]

    @property
    def told(self) -> list[float]:
        """Seconds until each preempted model showed its preemptor."""
        return [seconds for arrival in self.arrivals for seconds in arrival.told]


def values_of(ours: Figures, bare: Figures) -> dict[str, float | int | None]:
    """The values of the last line, by name (docs/benchmarks.md)."""
    return {
        "running_vs_scheduler": ratio(statistics.median(ours.running), statistics.median(bare.running)),
        "told_ms_p50": round(quantile(ours.told, 0.5) * 1000, 1),
        "told_ms_max": round(max(ours.told) * 1000, 1),
    }


def table(figures: Mapping[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what was measured, side by side."""
    sides = list(figures.values())
    return ["median (range), ms", *figures], [
        ["POST to the pod being made", *(_spread([one.made for one in side.arrivals]) for side in sides)],
        ["POST to the first victim's end", *(_spread([one.lost for one in side.arrivals]) for side in sides)],
        ["POST to the ready pod", *(_spread(side.running) for side in sides)],
        ["POST to Ready in the status", *(_spread([one.ready for one in side.arrivals]) for side in sides)],
        ["a victim's end seen to the taker's name in its status", *(_spread(side.told) for side in sides)],
        ["CPU of the operator for each preemption and return", *(_spread(side.cpu) for side in sides)],
    ]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    return f"{middle * 1000:.0f}  ({least * 1000:.0f}-{most * 1000:.0f}, n={len(seconds)})"


def notes_of(gpus: int, taken: int, busy: int, measured: int) -> dict[str, str]:
    """What a reader of the figures must know."""
    notes = {
        "running_vs_scheduler": "from the POST of the model, or of the Deployment, to its pod seen ready",
        "told_ms_p50": "from a victim's deletionTimestamp or the scheduler's Event, whichever is seen first",
        "scene": f"{gpus} GPUs full on each side, {taken} of them taken; pods of fake nodes end at once",
    }
    if busy:
        notes["noise"] = f"{busy} of {measured} measurements began on a machine that was not quiet"
    return notes
