"""Computes the figures of the operator's benchmark, with their goals and whether they are met. Pure."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from hack.bench._goals import Goal
from hack.bench._harness import ratio
from hack.bench._operator_memory import Memory

FACTS_NOTE = "pods of fake nodes have no address, so the operator is set not to ask them what they run"


OF_1000 = ("ready_1000_vs_kopf", "rss_mb_1000", "restart_1000_s")

CHILDREN = 3
"""A Deployment, a Service and a PodDisruptionBudget; the others make the same."""


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    models: int = 1000
    rss_models: int = 5000
    pairs: int = 5
    seconds: int = 270
    patience: float = 10.0


@dataclass
class Figures:
    """What was measured of one side; times in seconds, memory in MB (10⁶ bytes)."""

    child: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    all_children: list[float] = field(default_factory=list)
    all_ready: list[float] = field(default_factory=list)
    cpu_per_model: list[float] = field(default_factory=list)
    writes_per_model: list[float] = field(default_factory=list)
    changes_per_model: list[float] = field(default_factory=list)
    rss_start_mb: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)


@dataclass
class Final:
    """What is asked of our operator only; times in seconds, the one after kopf's end None if it was not seen."""

    quiet_writes: int
    restart_writes: int
    restart_seconds: float
    kopf_restart_seconds: float | None
    memory: Memory | None


def quantile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed.

    >>> quantile([5, 1, 2, 3, 4], 0.5), quantile([1, 2], 0.99)
    (3, 2)
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def values_of(figures: Mapping[str, Figures], final: Final) -> dict[str, float | int | None]:
    """The values of the last line, by name (docs/benchmarks.md)."""
    ours, kopf, bare = figures["ours"], figures["kopf_operator"], figures["bare"]
    cpu = statistics.median(ours.cpu_per_model)
    return {
        "child_p50_vs_kopf": ratio(statistics.median(ours.child), statistics.median(kopf.child)),
        "ready_1000_vs_kopf": ratio(statistics.median(kopf.all_ready), statistics.median(ours.all_ready)),
        "cpu_per_cr_vs_kopf": ratio(cpu, statistics.median(kopf.cpu_per_model)),
        "cpu_per_cr_ms": round(cpu * 1000, 2),
        "cpu_per_cr_vs_bare": ratio(cpu, statistics.median(bare.cpu_per_model)),
        "rss_mb_start": round(statistics.median(ours.rss_start_mb), 1),
        "rss_mb_1000": round(statistics.median(ours.rss_mb), 1),
        "restart_1000_s": round(final.restart_seconds, 2),
        "kopf_restart_s": None if final.kopf_restart_seconds is None else round(final.kopf_restart_seconds, 2),
        "writes_per_cr": round(statistics.median(ours.writes_per_model), 3),
        "quiet_writes_60s": final.quiet_writes,
        "restart_writes": final.restart_writes,
        "rss_mb_5000": None if final.memory is None else round(final.memory.worst, 1),
        "status_p50_ms": round(quantile(ours.told, 0.5) * 1000, 2),
        "status_p99_ms": round(quantile(ours.told, 0.99) * 1000, 2),
    }


def goals_of(ours: Figures) -> dict[str, Goal]:
    """The goals; that of the writes is what the models' children and the changes of their status ask for.

    The bare loop is a column to compare with, no goal.
    """
    needed = CHILDREN + statistics.median(ours.changes_per_model)
    return {
        "child_p50_vs_kopf": Goal("≤", 1.1),
        "ready_1000_vs_kopf": Goal("≥", 0.9),
        "cpu_per_cr_vs_kopf": Goal("≤", 1.25),
        "cpu_per_cr_ms": Goal("≤", 40),
        "rss_mb_start": Goal("≤", 85),
        "rss_mb_1000": Goal("≤", 120),
        "restart_1000_s": Goal("≤", 5),
        "kopf_restart_s": Goal("≤", 3),
        "writes_per_cr": Goal("≤", round(needed, 3), f"{CHILDREN} children + changes of status"),
        "quiet_writes_60s": Goal("≤", 0),
        "restart_writes": Goal("≤", 0),
        "rss_mb_5000": Goal("≤", 190),
        "status_p50_ms": Goal("≤", 60),
        "status_p99_ms": Goal("≤", 250),
    }


def sides_table(figures: Mapping[str, Figures]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what was measured, side by side."""
    sides = list(figures.values())

    def row(name: str, cells: list[str]) -> list[str]:
        return [name, *cells]

    def quantiles(values: list[float]) -> str:
        return " / ".join(f"{quantile(values, share) * 1000:.1f}" for share in (0.5, 0.99)) + f"  (n={len(values)})"

    def median(values: list[float], unit: float = 1.0) -> str:
        return f"{statistics.median(values) * unit:.2f}  ({min(values) * unit:.2f}-{max(values) * unit:.2f})"

    rows = [
        row("POST to Deployment seen, p50 / p99 ms", [quantiles(side.child) for side in sides]),
        row("pod readiness to status seen, p50 / p99 ms", [quantiles(side.told) for side in sides]),
        row("N models, every Deployment, s", [median(side.all_children) for side in sides]),
        row("N models, all Ready, s", [median(side.all_ready) for side in sides]),
        row("CPU for each model, µs", [median(side.cpu_per_model, 1e6) for side in sides]),
        row("writes for each model", [median(side.writes_per_model) for side in sides]),
        row("changes of status for each model", [median(side.changes_per_model) for side in sides]),
        row("RSS at start, MB", [median(side.rss_start_mb) for side in sides]),
        row("RSS with N models, MB", [median(side.rss_mb) for side in sides]),
    ]
    return ["median (range)", *figures], rows


def notes_of(options: Options, final: Final) -> dict[str, str]:
    """What a reader of the figures must know."""
    notes = {"facts": FACTS_NOTE}
    if options.models != 1000:
        notes |= dict.fromkeys(OF_1000, f"N = {options.models}, not 1000")
    if final.kopf_restart_seconds is None:
        notes["kopf_restart_s"] = "after an ERROR of 500 in one watch, not every kind was watched again"
    if final.memory is None:
        notes["rss_mb_5000"] = "left out (--quick, or --rss-models is not above --models)"
    else:
        with_models = f"with {options.rss_models} models {final.memory.grown:.0f} MB"
        notes["rss_mb_5000"] = f"{with_models}, after a restart {final.memory.restarted:.0f} MB; the worse counts"
    return notes
