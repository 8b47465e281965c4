"""Tells a hung engine from a slow one, within two seconds where the engine does nothing at all.

An engine that works on a long prompt may send nothing for minutes, and its HTTP threads may answer while its work loop
is stuck. So silence alone proves nothing. What it does is looked at first: a thread that runs, waits for a CPU or a
disk, or CPU time that passes, is work, however slow, and is not disturbed by probes, each of which would hold one of
the engine's threads until the batch is done. Only an engine that is silent on all running requests and does nothing is
probed; one that does not even answer then is hung. One that answers may wait for a GPU, or be stuck behind its HTTP
threads: it gets longer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moorage_runtime.activity import Activity


@dataclass(frozen=True, kw_only=True)
class WatchdogPolicy:
    """When an engine counts as hung. Times in seconds.

    One that is stopped is seen after at most silence + tick, to look twice, and tick + probe_timeout.
    """

    tick: float = 0.2
    silence: float = 0.4
    """No byte on any running request for so long is suspicious."""
    confirm: float = 0.9
    """For so long a suspicion must hold."""
    probe_timeout: float = 0.8
    stall: float = 10.0
    """An engine that answers, but neither works nor sends anything for so long, is hung, if work needs the CPU."""
    patience: float = 300.0
    """One that works but neither answers nor sends anything for so long is hung as well."""
    patient_probe: float = 30.0
    """So long it may take to answer then: it may be in the middle of a large batch."""
    idle_share: float = 0.02
    """Below this share of one CPU a process does nothing; answering probes takes less."""
    idle_tick: float = 1.0
    """The pause between looks at an engine that answered but does nothing."""


@dataclass
class Suspicion:
    """What was true when an engine fell silent."""

    since: float
    done: Activity


async def hung(
    *,
    policy: WatchdogPolicy,
    silence: Callable[[], float],
    probe: Callable[[float], Awaitable[bool]],
    activity: Callable[[], Activity],
    works_on_cpu: bool,
) -> str:
    """Watch until the engine hangs, and say how that was seen.

    `silence` gives the seconds since the last byte of any running request (0 when none runs), `probe` whether the
    engine answers within so many seconds, `activity` what it does.
    """
    clock = asyncio.get_running_loop().time
    suspicion: Suspicion | None = None
    pause = policy.tick
    while True:
        await asyncio.sleep(pause)
        pause = policy.tick
        silent = silence()
        if silent < policy.silence:
            suspicion = None
            continue
        now = activity()
        if suspicion is None:
            suspicion = Suspicion(clock(), now)
            continue
        if busy(policy, suspicion, clock(), now):
            suspicion = None
            if silent >= policy.patience and not await probe(policy.patient_probe) and silence() >= policy.patience:
                return f"it sent nothing for {silence():.0f} s and does not answer"
            continue
        answers = await probe(policy.probe_timeout)
        silent = silence()
        if silent < policy.silence or busy(policy, suspicion, clock(), activity()):
            suspicion = None
            continue
        verdict = judge(
            policy, elapsed=clock() - suspicion.since, silent=silent, answers=answers, works_on_cpu=works_on_cpu
        )
        if verdict is not None:
            return verdict
        if answers:
            pause = policy.idle_tick


def busy(policy: WatchdogPolicy, suspicion: Suspicion, now: float, found: Activity) -> bool:
    """Say whether an engine has done anything since the suspicion began."""
    elapsed = max(now - suspicion.since, 0.001)
    share = found.cpu_since(suspicion.done) / elapsed
    return found.works or share >= policy.idle_share or found.page_faults > suspicion.done.page_faults


def judge(policy: WatchdogPolicy, *, elapsed: float, silent: float, answers: bool, works_on_cpu: bool) -> str | None:
    """Give the reason to call an engine hung that was silent and did nothing for `elapsed` seconds, or None."""
    if elapsed < policy.confirm:
        return None
    if not answers:
        return f"it sent nothing for {silent:.1f} s, does not answer and does nothing"
    if works_on_cpu and silent >= policy.stall:
        return f"it sent nothing for {silent:.0f} s and does nothing, while requests run"
    return None
