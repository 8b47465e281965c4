"""`python -m hack.bench.operator`: our operator against a minimal one on kopf, and a bare list/watch loop beside them.

All serve the same models on the same control plane in turn: some models one at a time (POST to Deployment, pod
readiness to status), then N at once. Our operator stays at the end: does it write when nothing happens, or when it
starts again, how long is it blind when kopf ends, and what memory does it take for 5,000 models?
"""

import argparse
import asyncio
import math
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop

from hack.bench._goals import goal_rows
from hack.bench._harness import machine, print_table, quiet, report, version_of
from hack.bench._kube import connect
from hack.bench._operator_load import Load
from hack.bench._operator_memory import Memory, memory_of
from hack.bench._operator_restart import kopf_restart_seconds
from hack.bench._operator_result import Figures, Final, Options, goals_of, notes_of, sides_table, values_of
from hack.bench._operator_sides import (
    Ours,
    Side,
    bare_loop,
    cpu_of,
    guard,
    kopf_operator,
    rss_mb_of,
    wait_until_idle,
)
from hack.cluster.api import Cluster, ClusterOptions, down, up
from hack.cluster.locking import locked
from hack.cluster.paths import clusters_root
from hack.cluster.toolchain.catalog import KUBERNETES_VERSION
from tests.support.operator import Audit, described, install, kubeconfig_of

CLUSTER = "bench-operator"
SINGLES = 8
FEWEST_PAIRS = 3
READINESS_CHANGES = 40
PODS_PER_NODE = 250
QUIET_SECONDS = 60.0


@dataclass
class Bench:
    """The cluster, the user, all sides, and what is known so far."""

    options: Options
    cluster: Cluster
    kubeconfig: Path
    folder: Path
    http: aiohttp.ClientSession
    load: Load
    figures: dict[str, Figures] = field(default_factory=dict)
    busy_rounds: int = 0

    async def run(self, others: Sequence[Side], ours: Side) -> Final:
        """All rounds, then what is asked of ours only, with its models still there."""
        sides = [*others, ours]
        self.figures = {side.name: Figures() for side in sides}
        began = time.monotonic()
        for number in range(self.options.pairs):
            last = number == self.options.pairs - 1
            if number >= FEWEST_PAIRS - 1:
                # One more pair takes as long as those before did on average.
                last |= (time.monotonic() - began) * (number + 2) / max(number, 1) > self.options.seconds
            # The order turns; the last one is ours, which then stays.
            for side in sides[::-1] if number % 2 and not last else sides:
                await self._round(side, stays=last and side is ours)
            if last:
                break
        return await self._final(ours)

    async def _round(self, side: Side, *, stays: bool) -> None:
        figures = self.figures[side.name]
        began = time.monotonic()
        self.busy_rounds += not await quiet(self.options.patience)
        side.start()
        await wait_until_idle(side)
        figures.rss_start_mb.append(rss_mb_of(side))
        async with asyncio.TaskGroup() as group:
            guarding = group.create_task(guard(side))
            await self.load.child_seconds("warm-up")
            for number in range(SINGLES):
                figures.child.append(await self.load.child_seconds(f"single-{number}"))
            await self._burst(side, figures)
            await self._readiness(figures)
            guarding.cancel()
        if not stays:
            side.stop()
            await self.load.clear()
        say(f"{side.name}: a round in {time.monotonic() - began:.0f} s, {figures.all_ready[-1]:.1f} s to Ready")

    async def _readiness(self, figures: Figures) -> None:
        pods = await self.load.pods()
        for number in range(READINESS_CHANGES):
            # Each pod is taken down and brought back later, so that two changes of one model are far apart.
            name = f"model-{number % (READINESS_CHANGES // 2)}"
            ready = number >= READINESS_CHANGES // 2
            figures.told.append(await self.load.told_seconds(name, pods[name], ready=ready))
            await asyncio.sleep(0.05)

    async def _burst(self, side: Side, figures: Figures) -> None:
        models = self.options.models
        await self.load.settle()
        position, cpu, changes = Audit(self.cluster.audit_log).position(), cpu_of(side), self.load.models.status_changes
        burst = await self.load.burst([f"model-{number}" for number in range(models)], seconds=1 + models * 0.5)
        await self.load.settle()
        figures.all_children.append(burst.children_seconds)
        figures.all_ready.append(burst.ready_seconds)
        figures.cpu_per_model.append((cpu_of(side) - cpu) / models)
        figures.writes_per_model.append(len(Audit(self.cluster.audit_log).writes(position, side.user)) / models)
        figures.changes_per_model.append((self.load.models.status_changes - changes) / models)
        figures.rss_mb.append(rss_mb_of(side))

    async def _final(self, ours: Side) -> Final:
        await self.load.settle()
        position = Audit(self.cluster.audit_log).position()
        await asyncio.sleep(QUIET_SECONDS)
        quiet = described(Audit(self.cluster.audit_log).writes(position))
        ours.stop()
        position = Audit(self.cluster.audit_log).position()
        seconds = ours.start()
        await wait_until_idle(ours)
        again = described(Audit(self.cluster.audit_log).writes(position))
        for writes, when in ((quiet, "in the quiet"), (again, "after the restart")):
            if writes:
                say(f"written {when}: {writes[:5]}")
        ours.stop()
        blind = await kopf_restart_seconds(self.cluster, self.kubeconfig, self.folder)
        ours.start()
        return Final(len(quiet), len(again), seconds, blind, await self._memory(ours))

    async def _memory(self, ours: Side) -> Memory | None:
        if self.options.rss_models <= len(self.load.models.objects):
            return None
        began = time.monotonic()
        memory = await memory_of(ours, self.load, self.cluster, self.http, self.options.rss_models)
        say(f"memory with {self.options.rss_models} models in {time.monotonic() - began:.0f} s: {memory}")
        return memory


@contextmanager
def cluster_of(models: int) -> Iterator[Cluster]:
    """A control plane with the chart applied and room for so many pods; gone afterwards."""
    down(CLUSTER)
    try:
        cluster = up(ClusterOptions(name=CLUSTER, control_plane_only=True))
        for number in range(math.ceil((models + SINGLES + 2) / PODS_PER_NODE)):
            cluster.add_fake_node(f"bench-{number}", 0)
        install(cluster)
        yield cluster
    finally:
        down(CLUSTER)


async def measure(cluster: Cluster, options: Options, folder: Path) -> tuple[Bench, Final]:
    """Everything, on a running cluster."""
    async with connect(cluster.kubeconfig) as http:
        load = Load(http)
        await load.start()
        kubeconfig = kubeconfig_of(cluster, folder / "kubeconfig")
        bench = Bench(options, cluster, kubeconfig, folder, http, load)
        others: list[Side] = [bare_loop(kubeconfig, folder / "bare.log"), kopf_operator(cluster, folder)]
        ours = Ours(kubeconfig, folder / "ours.log")
        try:
            final = await bench.run(others, ours)
            errors = ours.process.errors()
            assert not errors, f"our operator logged errors: {errors[:3]}"
            return bench, final
        finally:
            ours.stop()
            for side in others:
                side.stop()
            load.stop()


def say(text: str) -> None:
    """Progress, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> Options:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.operator", description=__doc__)
    parser.add_argument("--models", type=int, default=Options.models, help="models that are created at once")
    parser.add_argument("--rss-models", type=int, default=Options.rss_models, help="models that RSS is measured with")
    parser.add_argument("--pairs", type=int, default=Options.pairs, help="rounds of all sides, at most")
    parser.add_argument("--seconds", type=int, default=Options.seconds, help="time for the rounds; at least three run")
    parser.add_argument("--patience", type=float, default=Options.patience, help="seconds to wait for a quiet machine")
    parser.add_argument("--quick", action="store_true", help="leave RSS out")
    given = parser.parse_args(arguments)
    return Options(given.models, 0 if given.quick else given.rss_models, given.pairs, given.seconds, given.patience)


def main() -> int:
    """Measure, print the tables and the last line."""
    options = parse(sys.argv[1:])
    # Told to end, it must still take its cluster away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    before = machine()
    alone = locked(clusters_root() / f".{CLUSTER}-run.lock", "another run of this benchmark")
    with alone, cluster_of(options.models) as cluster, tempfile.TemporaryDirectory() as folder:
        bench, final = uvloop.run(measure(cluster, options, Path(folder)))
    rounds = len(bench.figures["ours"].all_ready)
    print(f"{before}; N = {options.models}, {rounds} rounds of each side, {time.monotonic() - began:.0f} s")
    print()
    print_table(*sides_table(bench.figures))
    print()
    values = values_of(bench.figures, final)
    print_table(["figure", "value", "goal", ""], goal_rows(values, goals_of(bench.figures["ours"])))
    print()
    versions = {name: version_of(name) for name in ("moorage-operator", "kopf", "kubernetes", "aiohttp", "uvloop")}
    notes = notes_of(options, final)
    if bench.busy_rounds:
        total = rounds * len(bench.figures)
        notes["noise"] = f"{bench.busy_rounds} of {total} rounds began on a machine that was not quiet"
    report("operator", values, versions | {"API server": KUBERNETES_VERSION}, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
