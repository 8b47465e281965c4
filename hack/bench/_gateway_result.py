"""Computes the figures of the gateway's benchmark from its measurements, with their goals. Pure."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hack.bench._gateway_load import Requests, Streams
from hack.bench._goals import Goal
from hack.bench._harness import Samples

T = TypeVar("T")

MOST = 5_000

GOALS = {
    "rps_vs_nginx": Goal("≥", 0.6),
    "rps_vs_vllm_router": Goal("≥", 2.5),
    "rps_vs_aiohttp": Goal("≥", 1.0, "no goal of its own"),
    "p50_c1_vs_nginx": Goal("≤", 1.25),
    "p99_c1_vs_nginx": Goal("≤", 2.0),
    "sse_512_vs_direct": Goal("≥", 0.98),
    "sse_gap_p99_vs_nginx": Goal("≤", 1.5),
    "prompts_200k_vs_nginx": Goal("≥", 1.0),
    "rss_mb_512_streams": Goal("≤", 64),
    "errors_5000_streams": Goal("≤", 0),
    "ready_ms": Goal("≤", 500),
}


@dataclass
class Figures:
    """All runs, by server: requests on many connections, on one, with long prompts; streams; ours with thousands."""

    many: dict[str, list[Requests]] = field(default_factory=dict)
    alone: dict[str, list[Requests]] = field(default_factory=dict)
    prompts: dict[str, list[Requests]] = field(default_factory=dict)
    streams: dict[str, list[Streams]] = field(default_factory=dict)
    crowds: dict[int, Streams] = field(default_factory=dict)
    ready: Samples | None = None
    """Milliseconds."""
    idle_rss: int = 0
    """Bytes."""
    measured: int = 0
    busy: int = 0
    """Measurements that began on a machine that was busy with something else."""


def values_of(figures: Figures) -> dict[str, float | int | None]:
    """The values of the last line, by name (docs/benchmarks.md)."""
    crowd = figures.crowds.get(MOST)
    return {
        "rps_vs_nginx": _ratio(figures.many, "nginx", _rate),
        "rps_vs_vllm_router": _ratio(figures.many, "vllm-router", _rate),
        "rps_vs_aiohttp": _ratio(figures.many, "aiohttp", _rate),
        "p50_c1_vs_nginx": _ratio(figures.alone, "nginx", lambda one: one.p50),
        "p99_c1_vs_nginx": _ratio(figures.alone, "nginx", lambda one: one.p99),
        "sse_512_vs_direct": _ratio(figures.streams, "direct", lambda one: one.events_per_second),
        "sse_gap_p99_vs_nginx": _ratio(figures.streams, "nginx", lambda one: one.gap_ms_p99),
        "prompts_200k_vs_nginx": _ratio(figures.prompts, "nginx", _rate),
        "rss_mb_512_streams": _megabytes(figures.streams.get("ours", ())),
        "errors_5000_streams": crowd.errors if crowd is not None else None,
        "ready_ms": round(figures.ready.median) if figures.ready is not None else None,
    }


def tables(figures: Figures) -> Iterable[tuple[list[str], list[list[str]]]]:
    """Headers and rows of what was measured."""
    kinds = {"1 KB, many": figures.many, "1 KB, one by one": figures.alone, "200 KB, many": figures.prompts}
    header = ["requests", "server", "req/s", "noise", "p50 µs", "p99 µs", "CPU µs/request"]
    yield header, [_requests_row(kind, *side) for kind, runs in kinds.items() for side in runs.items()]
    header = ["streams", "events/s", "gap p50 ms", "gap p99 ms", "came together", "CPU µs/event", "memory MB", "errors"]
    sides: dict[str, Sequence[Streams]] = {
        **{f"512, {name}": runs for name, runs in figures.streams.items()},
        **{f"{number}, ours": [run] for number, run in figures.crowds.items()},
    }
    yield header, [_streams_row(*side) for side in sides.items()]


def notes_of(figures: Figures, values: Mapping[str, float | None]) -> dict[str, str]:
    """What a reader of the figures must know."""
    notes = {name: "not measured in this run" for name, value in values.items() if value is None}
    if "nginx, tuned" in figures.prompts:
        told_ratio = _ratio(figures.prompts, "nginx, tuned", _rate)
        notes["prompts_200k_vs_nginx"] = f"nginx writes such bodies to files; told to keep them in memory: {told_ratio}"
    if figures.streams:
        told = (f"{name} {_share(runs):.2%}" for name, runs in figures.streams.items())
        notes["came_together"] = f"events that came in one read with the one before: {', '.join(told)}"
    if figures.crowds:
        told = (f"{n}: {run.rss / 2**20:.0f} MB, {run.open_most} at a time" for n, run in figures.crowds.items())
        notes["crowds"] = "; ".join(told)
    if figures.busy:
        notes["noise"] = f"{figures.busy} of {figures.measured} measurements began on a machine that was not quiet"
    if figures.idle_rss:
        notes["idle"] = f"{figures.idle_rss / 2**20:.1f} MB when ready"
    return notes


def _rate(one: Requests) -> float:
    return one.rate


def _share(runs: Sequence[Streams]) -> float:
    return sum(run.together for run in runs) / max(sum(run.events for run in runs), 1)


def _megabytes(runs: Sequence[Streams]) -> float | None:
    return round(max(run.rss for run in runs) / 2**20, 1) if runs else None


def _ratio(runs: Mapping[str, Sequence[T]], other: str, figure: Callable[[T], float]) -> float | None:
    if "ours" not in runs or other not in runs:
        return None
    return round(_median(runs["ours"], figure) / _median(runs[other], figure), 3)


def _median(runs: Sequence[T], figure: Callable[[T], float]) -> float:
    return statistics.median(figure(run) for run in runs)


def _requests_row(kind: str, name: str, runs: Sequence[Requests]) -> list[str]:
    rates = Samples(name, [run.rate for run in runs])
    times = [f"{_median(runs, figure):.0f}" for figure in (lambda r: r.p50, lambda r: r.p99, lambda r: r.cpu)]
    return [kind, name, f"{rates.median:.0f}", f"±{rates.spread:.0%}", *times]


def _streams_row(name: str, runs: Sequence[Streams]) -> list[str]:
    figures = [_median(runs, figure) for figure in (lambda r: r.gap_ms_p50, lambda r: r.gap_ms_p99)]
    rate, cpu = _median(runs, lambda r: r.events_per_second), _median(runs, lambda r: r.cpu)
    told = [f"{rate:.0f}", *(f"{figure:.2f}" for figure in figures), f"{_share(runs):.2%}", f"{cpu:.1f}"]
    return [name, *told, str(_megabytes(runs)), str(sum(run.errors for run in runs))]
