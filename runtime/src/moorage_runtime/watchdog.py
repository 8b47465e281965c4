"""Tells a hung engine from a slow one.

An engine that works on a long prompt may send nothing for minutes, and its HTTP threads may answer while its work loop
is stuck. So silence alone proves nothing: what counts is silence on all running requests together with a probe that is
not answered and a process that does nothing, each for some seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WatchdogPolicy:
    """When an engine counts as hung. Times in seconds."""

    tick: float = 1.0
    silence: float = 10.0
    """No byte on any running request for so long is suspicious."""
    confirm: float = 4.0
    """For so long a suspicion must hold."""
    probe_timeout: float = 3.0
    patience: float = 300.0
    """A process that works but neither answers nor sends anything for so long is hung as well."""
    idle_share: float = 0.02
    """Below this share of one CPU a process does nothing; answering probes takes less."""


@dataclass
class Suspicion:
    """What was true when an engine fell silent."""

    since: float
    cpu_seconds: float
    page_faults: int


async def hung(
    *,
    policy: WatchdogPolicy,
    silence: Callable[[], float],
    probe: Callable[[], Awaitable[bool]],
    activity: Callable[[], tuple[float, int]],
    works_on_cpu: bool,
) -> str:
    """Watch until the engine hangs, and say how that was seen.

    `silence` gives the seconds since the last byte of any running request (0 when none runs), `probe` whether the
    engine answers, `activity` its CPU seconds and major page faults so far.
    """
    loop = asyncio.get_running_loop()
    suspicion: Suspicion | None = None
    while True:
        await asyncio.sleep(policy.tick)
        if silence() < policy.silence:
            suspicion = None
            continue
        if suspicion is None:
            suspicion = Suspicion(loop.time(), *activity())
            continue
        answers = await probe()
        silent = silence()
        if silent < policy.silence:
            continue
        verdict = judge(
            policy,
            suspicion,
            elapsed=loop.time() - suspicion.since,
            silent=silent,
            answers=answers,
            activity=activity(),
            works_on_cpu=works_on_cpu,
        )
        if verdict is not None:
            return verdict


def judge(  # noqa: PLR0913 - the evidence, each by its name
    policy: WatchdogPolicy,
    suspicion: Suspicion,
    *,
    elapsed: float,
    silent: float,
    answers: bool,
    activity: tuple[float, int],
    works_on_cpu: bool,
) -> str | None:
    """Give the reason to call a silent engine hung, or None."""
    cpu_seconds, page_faults = activity
    # Weights that come from a slow disk cost faults instead of CPU time.
    busy = (cpu_seconds - suspicion.cpu_seconds) / max(elapsed, 0.001) >= policy.idle_share
    busy = busy or page_faults > suspicion.page_faults
    if elapsed < policy.confirm:
        return None
    if not answers and not busy:
        return f"it sent nothing for {silent:.0f} s, does not answer and does nothing"
    if not busy and works_on_cpu:
        return f"it sent nothing for {silent:.0f} s and does nothing, while requests run"
    if not answers and silent >= policy.patience:
        return f"it sent nothing for {silent:.0f} s and does not answer"
    return None
