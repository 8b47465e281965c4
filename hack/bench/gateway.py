"""The gateway against nginx, vllm-router and a proxy on aiohttp: `python -m hack.bench.gateway`.

Each proxy has one core, the load and a mock engine in C have another. Requests are chats of 1 KB with answers of 0.6 KB
(wrk, 32 connections and 1), prompts of 200 KB, and streams with an event every 10 ms each (load_sse.c). Ours does what
it does in a cluster: it checks an API key, routes by the model, counts and limits; the others ask nobody who they are.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from hack.bench import _gateway_sides as sides
from hack.bench._gateway_load import Load, Requests, Streams, body_of, load_from
from hack.bench._gateway_result import GOALS, Figures, notes_of, tables, values_of
from hack.bench._goals import goal_rows
from hack.bench._harness import (
    DEFAULT_PAIRS,
    alternate_sync,
    machine,
    print_table,
    quiet,
    report,
    rss_bytes,
    version_of,
)
from hack.bench._processes import Served

T = TypeVar("T")

CONNECTIONS = 32
STREAMS = 512
EVENTS, TICK_US = 300, 10_000
MANY = (1_000, 5_000)
MANY_EVENTS, MANY_TICK_US = 16, 500_000


@dataclass
class Bench:
    """One run: where it happens, and what it has found."""

    core: int
    load_core: int
    pairs: int
    load: Load
    rivals: bool
    notes: dict[str, str]
    patience: float = 60.0
    """Seconds that may be waited in all for a quiet machine."""
    figures: Figures = field(default_factory=Figures)

    def requests(self) -> None:
        """Measure requests: as many as go, one by one, and long ones."""
        with ExitStack() as stack:
            pod = stack.enter_context(sides.mock(0, 0, core=self.load_core))
            servers = self._servers(stack, pod)
            two = {name: server for name, server in servers.items() if name in {"ours", "nginx"}}
            for server in servers.values():
                self.load.requests(server, body_of(1000), CONNECTIONS)
            self._each(self.figures.many, servers, partial(self._requests, 1000, CONNECTIONS))
            self._each(self.figures.alone, two, partial(self._requests, 1000, 1))
            if self.rivals:
                two["nginx, tuned"] = stack.enter_context(sides.nginx(pod, core=self.core, tuned=True))
            self._each(self.figures.prompts, two, partial(self._requests, 200_000, CONNECTIONS))

    def streams(self) -> None:
        """Measure streams, through a proxy and without one."""
        with ExitStack() as stack:
            pod = stack.enter_context(sides.mock(EVENTS, TICK_US, core=self.load_core))
            servers = {"direct": pod, **self._servers(stack, pod, only=("ours", "nginx"))}
            self._each(self.figures.streams, servers, partial(self._streams, STREAMS), pairs=min(3, self.pairs))

    def crowds(self) -> None:
        """Count errors with thousands of streams at a time."""
        with ExitStack() as stack:
            pod = stack.enter_context(sides.mock(MANY_EVENTS, MANY_TICK_US, core=self.load_core))
            (server,) = self._servers(stack, pod, only=("ours",)).values()
            for number in MANY:
                self.figures.crowds[number] = self._streams(number, server)

    def starts(self) -> None:
        """Measure the time from the start of the process to readiness."""
        with sides.mock(0, 0, core=self.load_core) as pod:

            def once() -> float:
                with sides.ours(pod, core=self.core, load_core=self.load_core) as served:
                    self.figures.idle_rss = rss_bytes(served.pid)
                    return served.started * 1000

            self.figures.ready = alternate_sync({"ours": once}, pairs=self.pairs)["ours"]

    def _be_quiet(self) -> None:
        began = time.monotonic()
        self.figures.measured += 1
        self.figures.busy += not asyncio.run(quiet(max(0.0, self.patience)))
        self.patience -= max(0.0, time.monotonic() - began - 1)

    def _servers(self, stack: ExitStack, pod: Served, only: tuple[str, ...] = ()) -> dict[str, Served]:
        makers: dict[str, Callable[[], object]] = {
            "ours": lambda: stack.enter_context(sides.ours(pod, core=self.core, load_core=self.load_core)),
            "nginx": lambda: stack.enter_context(sides.nginx(pod, core=self.core)),
            "vllm-router": lambda: stack.enter_context(sides.router(pod, core=self.core)),
            "aiohttp": lambda: stack.enter_context(sides.plain(pod, core=self.core)),
        }
        found: dict[str, Served] = {}
        for name, make in makers.items():
            if (only and name not in only) or (name != "ours" and not self.rivals):
                continue
            try:
                served = make()
            except sides.RivalMissing as missing:
                self.notes[name] = str(missing)
                continue
            assert isinstance(served, Served)
            found[name] = served
        return found

    def _requests(self, size: int, connections: int, server: Served) -> Requests:
        return self.load.requests(server, body_of(size), connections)

    def _streams(self, number: int, server: Served) -> Streams:
        return self.load.streams(server, number)

    def _each(
        self, into: dict[str, list[T]], servers: dict[str, Served], measure: Callable[[Served], T], pairs: int = 0
    ) -> None:
        """Measure the servers in turn, and keep all that was found."""

        def once(name: str) -> float:
            self._be_quiet()
            into.setdefault(name, []).append(measure(servers[name]))
            return 0.0

        alternate_sync({name: partial(once, name) for name in servers}, pairs=pairs or self.pairs)


def run(pairs: int, seconds: int, *, rivals: bool, parts: list[str], patience: float) -> None:
    """Measure everything and print it."""
    cores = sorted(os.sched_getaffinity(0))
    notes = {"machine": machine()}
    if len(cores) < 2:
        notes["cores"] = "there is only one: the load takes its time from what it measures"
    os.sched_setaffinity(0, {cores[-1]})
    with load_from(cores[-1], seconds) as load:
        bench = Bench(cores[0], cores[-1], pairs, load, rivals, notes, patience)
        for part in parts:
            getattr(bench, part)()
            print(f"{part}: measured", file=sys.stderr, flush=True)
    for header, rows in tables(bench.figures):
        print_table(header, rows)
        print()
    values = values_of(bench.figures)
    print_table(["figure", "value", "goal", ""], goal_rows(values, GOALS))
    versions = {
        "nginx": sides.nginx_version() if rivals else None,
        "vllm-router": sides.router_version() if rivals else None,
    }
    versions |= {"aiohttp": version_of("aiohttp"), "uvloop": version_of("uvloop"), "python": sys.version.split()[0]}
    report("gateway", values, versions, {**notes_of(bench.figures, values), **notes})


PARTS = ("starts", "requests", "streams", "crowds")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help="rounds of each measurement")
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    parser.add_argument("--no-rivals", action="store_true", help="ours alone")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this part only (again for another)")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine, in all")
    arguments = parser.parse_args()
    # So that the servers are ended too when a benchmark is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts = arguments.part or list(PARTS)
    run(arguments.pairs, arguments.seconds, rivals=not arguments.no_rivals, parts=parts, patience=arguments.patience)


if __name__ == "__main__":
    main()
