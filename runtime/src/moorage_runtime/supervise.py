"""The supervisor: keeps one engine running in its child process, from the check of the model's file to the last kill.

States, as `/health/detailed` tells them: starting (the file is checked) → loading (a child is loading) → ready (it has
answered a real request) → loading again after a crash or a hang. After an idle time, ready → unloaded (no child runs) →
loading when a request wants it. A failure that trying again would not mend, or too many failed starts, end `run` with
LoadFailure, and with it the process.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from moorage_common.estimate import mib
from moorage_common.facts import EngineFacts, LoadError, Phase
from moorage_common.http.client import Pool, UpstreamGone
from moorage_runtime import machine
from moorage_runtime.activity import session_activity
from moorage_runtime.collected import Collected
from moorage_runtime.engines.base import LOOPBACK, Engine, Plan
from moorage_runtime.errors import LoadFailure, engine_error
from moorage_runtime.process import Child, ChildEnded
from moorage_runtime.races import ended, ended_soon, first
from moorage_runtime.settings import Settings
from moorage_runtime.vocabulary import longest_token
from moorage_runtime.watchdog import WatchdogPolicy, hung

log = logging.getLogger(__name__)

MAX_SLEEP: Final = 3600.0

STILL_SECONDS: Final = 0.01
"""A load that takes less CPU between two looks does nothing."""


@dataclass(frozen=True, kw_only=True)
class SupervisionPolicy:
    """How patient the supervisor is. Times in seconds."""

    failed_starts: int = 3
    """So many starts in a row may fail."""
    backoff: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
    """Pauses before a restart, by the number of ends in a row."""
    steady: float = 60.0
    """An engine that ran for so long before it ended starts the row anew."""
    stuck_load: float = 120.0
    """A load that uses no CPU and reads nothing for so long is stuck."""
    smoke_timeout: float = 300.0
    watchdog: WatchdogPolicy = field(default_factory=WatchdogPolicy)


DEFAULT_POLICY: Final = SupervisionPolicy()


@dataclass(frozen=True)
class Traffic:
    """What the supervisor has to know of requests; times in seconds."""

    silence: Callable[[], float]
    """Since a running request last got a byte; 0 when none runs."""
    idle: Callable[[], float]
    """Since the last request; 0 while there is one."""


class Supervisor:
    """One engine under supervision; the routes read `phase`, `plan`, `facts` and `backend`."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        traffic: Traffic,
        policy: SupervisionPolicy = DEFAULT_POLICY,
        spare: Child | None = None,
    ) -> None:
        """Supervise `engine`.

        `spare` is a child that was started before, while the rest of this process was still being imported.
        """
        self.engine = engine
        self.phase = Phase.STARTING
        self.plan: Plan | None = None
        self.facts: EngineFacts | None = None
        self.backend: Pool | None = None
        self.restarts = 0
        self.unloads = 0
        self.load_phases: dict[str, float] = {}
        """Seconds of the last load: `check` of the files, `load` by the engine, its `first_answer`."""
        self.pid: int | None = None
        self._engine_peak = 0
        self._settings = settings
        self._policy = policy
        self._traffic = traffic
        self._wanted = asyncio.Event()
        self._awakening: asyncio.Future[Pool | None] | None = None
        """Of a model that is unloaded: its next load, for which requests wait."""
        self._spare = spare

    @property
    def load_seconds(self) -> float | None:
        """What the last load took, from the start of the process to its first answer."""
        phases = self.load_phases
        return phases["load"] + phases["first_answer"] if "first_answer" in phases else None

    @property
    def asleep(self) -> bool:
        """The model is unloaded, or being loaded again for a request: requests are taken, and wait."""
        return self._awakening is not None

    def engine_peak(self) -> int:
        """Give the most memory that an engine has held so far, of those that were looked at before they ended."""
        if self.pid is not None:
            self._engine_peak = max(self._engine_peak, machine.session_peak(self.pid))
        return self._engine_peak

    async def awake(self) -> Pool | None:
        """Give the way to the engine, of an unloaded model once it is loaded again; None where there is none."""
        if self._awakening is None:
            return self.backend
        self._wanted.set()
        # Whoever leaves must not end what the others wait for.
        return await asyncio.shield(self._awakening)

    async def run(self) -> None:
        """Keep the engine running until cancelled; raise LoadFailure when that is hopeless."""
        try:
            plan = await self._make_plan()
            try:
                await self._keep_running(plan)
            except LoadFailure as failure:
                told = failure.termination
                raise LoadFailure(told.reason, told.message, plan.shape) from failure
        finally:
            if self._spare is not None:
                await self._spare.stop()

    async def _make_plan(self) -> Plan:
        if self._spare is None:
            self._spare = await Child.start(self.engine)
        begun = asyncio.get_running_loop().time()
        plan = await asyncio.to_thread(self.engine.plan, self._settings)
        if plan.longest_token is None:
            longest = await asyncio.to_thread(longest_token, self._settings.model_path)
            plan = replace(plan, longest_token=longest)
        self.plan, self.facts = plan, plan.facts
        self.load_phases = {"check": asyncio.get_running_loop().time() - begun}
        for note in plan.notes:
            log.info(note)
        return plan

    async def _keep_running(self, plan: Plan) -> None:
        ends = failures = 0
        while True:
            self.phase = Phase.LOADING
            ready_for, end = await self._run_once(plan)
            if self.asleep:
                ends = failures = 0
                log.info("the model is unloaded: %s", end)
                await self._wanted.wait()
                continue
            failures = failures + 1 if ready_for is None else 0
            ends = 1 if ready_for is not None and ready_for >= self._policy.steady else ends + 1
            if failures >= self._policy.failed_starts:
                raise LoadFailure(LoadError.ENGINE_FAILED, f"{failures} starts failed in a row; the last: {end}")
            self.restarts += 1
            pause = self._policy.backoff[min(ends, len(self._policy.backoff)) - 1]
            log.error("the engine ended: %s; it is started again in %s s", end, pause)
            await asyncio.sleep(pause)

    async def _run_once(self, plan: Plan) -> tuple[float | None, str]:
        """Run one child to its end. Give how long it was ready (None: never), and what ended it."""
        loop = asyncio.get_running_loop()
        kills = machine.oom_kills()
        started, ready_at = loop.time(), None
        child, self._spare = self._spare or await Child.start(self.engine), None
        child.load(plan.config)
        self.pid = child.pid
        pool: Pool | None = None
        try:
            pool = await self._load(child, plan)
            ready_at = loop.time()
            self.backend, self.phase = pool, Phase.READY
            self._wake(pool)
            log.info(
                "the model is loaded and answers", extra={"seconds": round(ready_at - started, 3), **_told(self.facts)}
            )
            end = await first(self._watch(child, plan, pool), ended(child), self._unused())
        except ChildEnded as gone:
            if gone.killed and machine.oom_kills() > kills:
                limit = machine.memory_limit()
                raise LoadFailure(
                    LoadError.OUT_OF_MEMORY,
                    "the kernel ended the engine for lack of memory"
                    + (f"; {limit.source} is {mib(limit.size)}: raise it" if limit else ""),
                ) from gone
            end = str(gone)
        finally:
            self.engine_peak()  # with the process goes what is known of it
            self.backend, self.pid = None, None
            if ready_at is None:
                self._wake(None)
            if self.phase is Phase.READY:
                self.phase = Phase.LOADING
            # First the child, so that whoever relays from it hears of the end from its sockets.
            await child.stop()
            if pool is not None:
                pool.close()
        return (None if ready_at is None else loop.time() - ready_at), end

    async def _unused(self) -> str:
        """Return when nobody has wanted the model for as long as the settings say; from then on it is unloaded."""
        loop = asyncio.get_running_loop()
        limit, since = self._settings.unload_after, loop.time()
        while (idle := min(self._traffic.idle(), loop.time() - since)) < limit:  # noqa: ASYNC110 - the time is the event
            await asyncio.sleep(min(limit - idle, MAX_SLEEP))
        # No await between the look and the deed: a request that comes from here on finds a model that is unloaded.
        self._wanted.clear()
        self._awakening = loop.create_future()
        self.backend, self.phase = None, Phase.UNLOADED
        self.unloads += 1
        return f"no request for {idle:.0f} s"

    def _wake(self, pool: Pool | None) -> None:
        """End the wait of requests for a load: by the way to the engine, or with None where the load has failed."""
        if self._awakening is not None:
            self._awakening.set_result(pool)
            self._awakening = None

    async def _load(self, child: Child, plan: Plan) -> Pool:
        clock = asyncio.get_running_loop().time
        begun = clock()
        announcement = await first(child.announcement(), self._stuck(child))
        if announcement.failure is not None:
            await asyncio.sleep(0.05)  # the engine's own words come by another pipe, a moment later
            # All of them: an engine of several processes may need long to end after the first has told what is wrong.
            complaints = child.complaints_since(0.0)
            said = f" ({complaints})" if complaints else ""
            raise LoadFailure(announcement.failure, f"the engine cannot load the model: {announcement.message}{said}")
        pool = Pool(LOOPBACK, announcement.port, keep=self._settings.concurrency)
        loaded = clock()
        await self._smoke(child, plan, pool)
        self.load_phases |= {"load": loaded - begun, "first_answer": clock() - loaded}
        held = announcement.memory_bytes
        really = {
            name: value
            for name in ("quantization", "dtype", "weights_bytes")
            if (value := getattr(announcement, name)) is not None
        }
        self.facts = msgspec.structs.replace(
            plan.facts,
            engine_version=announcement.version,
            device=announcement.device,
            memory_bytes=machine.session_resident(child.pid) if held is None else held,
            **really,
        )
        return pool

    async def _smoke(self, child: Child, plan: Plan, pool: Pool) -> None:
        """Ask for one token: an engine that listens may still be unable to answer."""
        answer = Collected()
        request = pool.request_bytes("POST", plan.smoke_path, plan.smoke_body)
        try:
            async with asyncio.timeout(self._policy.smoke_timeout):
                await first(pool.exchange(request, answer), ended(child))
        except TimeoutError:
            raise ChildEnded(f"no answer to a first request in {self._policy.smoke_timeout} s", killed=False) from None
        except UpstreamGone as gone:
            raise await ended_soon(child, gone) from gone
        if answer.status != 200:
            error = engine_error(answer.status, answer.content)
            raise LoadFailure(
                LoadError.ENGINE_FAILED,
                f"the engine refused a first request with status {answer.status}: {error.get('message')}",
            )

    async def _watch(self, child: Child, plan: Plan, pool: Pool) -> str:
        reason = await hung(
            policy=self._policy.watchdog,
            silence=self._traffic.silence,
            probe=lambda seconds: self._answers(plan, pool, seconds),
            activity=lambda: session_activity(child.pid),
            works_on_cpu=plan.works_on_cpu,
        )
        return f"it hung: {reason}"

    async def _answers(self, plan: Plan, pool: Pool, seconds: float) -> bool:
        answer = Collected()
        try:
            async with asyncio.timeout(seconds):
                await pool.exchange(pool.request_bytes("GET", plan.probe_path), answer)
        except (TimeoutError, UpstreamGone):
            return False
        return answer.status == 200

    async def _stuck(self, child: Child) -> Any:
        """Return when a load does nothing for too long: an engine may never come back from an absurd setting."""
        step = self._policy.stuck_load / 8
        done, held, still = session_activity(child.pid), machine.session_resident(child.pid), 0.0
        while still < self._policy.stuck_load:
            await asyncio.sleep(step)
            now, holds = session_activity(child.pid), machine.session_resident(child.pid)
            worked = now.cpu_since(done) >= STILL_SECONDS or now.page_faults != done.page_faults
            still = 0.0 if worked or holds != held else still + step
            done, held = now, holds
        raise ChildEnded(f"the load did nothing for {still:.0f} s", killed=False)


def _told(facts: EngineFacts | None) -> dict[str, Any]:
    """Give what is known of the loaded model, for the log: a fall back to the CPU must be seen there too."""
    known = msgspec.structs.asdict(facts) if facts else {}
    return {name: value for name, value in known.items() if value is not None}
