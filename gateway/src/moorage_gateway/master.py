"""Several workers as one gateway: it starts them, ends them, and answers at the administrative port for all of them.

`/livez` and `/readyz` are well when those of all workers are, `/metrics` has their sums, and `/demand` what they tell
of the use of models, put together.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from moorage_common.demand import LINE_BYTES, decode
from moorage_common.http.client import AnswerTooLong, UpstreamConnection, UpstreamGone
from moorage_common.http.connections import Connections
from moorage_common.http.handler import Running
from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_gateway.demand import Demand
from moorage_gateway.demand_access import PATH as DEMAND
from moorage_gateway.demand_access import DemandAccess
from moorage_gateway.kube.client import Kube, Login
from moorage_gateway.merged import SharedUse, merge_metrics
from moorage_gateway.metrics import CONTENT_TYPE
from moorage_gateway.probes import merged_probe
from moorage_gateway.reviews import KubeReviews
from moorage_gateway.settings import NAME, PREFIX, Settings
from moorage_gateway.supervisor import Supervisor
from moorage_gateway.workers import Worker, reserve

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 3.0
"""For which a worker is waited for."""
MORE_SECONDS: Final = 10.0
"""Beyond the time that they have to drain, before workers are killed."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of an answer of a worker."""
FOLLOW_AGAIN_SECONDS: Final = 0.1


class Master:
    """The process that clients do not see. `run` is its whole life; `stop` begins the end, as SIGTERM does."""

    def __init__(self, settings: Settings, demand_access: DemandAccess) -> None:
        """Prepare; nothing is opened or started yet. `demand_access` lets those follow who may."""
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._demand = Demand()
        self._demand_access = demand_access
        self._managing: asyncio.Task[None] | None = None
        """The process of the management API, one for all workers."""
        self._use = SharedUse(settings.workers, self._loop.time, self._demand.changed)
        self._workers = [Worker(number, self._started) for number in range(settings.workers)]
        self._starts = 0
        self._following: dict[int, asyncio.Task[None]] = {}
        self._admins = Connections()
        self._stopping = False

    async def run(self) -> int:
        """Serve until stopped: 0 where all workers ended well."""
        host = self._settings.host
        try:
            admin = await self._loop.create_server(self._connection, host, self._settings.admin_port)
            kept = reserve(host, self._settings.port)
        except OSError as error:
            log.error("cannot listen", extra={"host": host, "error": error.strerror or str(error)})
            return 1
        with kept:
            port, admin_port = kept.getsockname()[1], admin.sockets[0].getsockname()[1]
            log.info("listening", extra={"host": host, "port": port, "admin_port": admin_port})
            if self._settings.management_socket:
                self._managing = self._loop.create_task(Supervisor().run())
            environment = {**os.environ, f"{PREFIX}PORT": str(port)}
            well = await asyncio.gather(*(worker.run(environment) for worker in self._workers))
            if self._managing is not None:
                self._managing.cancel()
                await asyncio.gather(self._managing, return_exceptions=True)
        if self._following:
            await asyncio.wait(self._following.values(), timeout=ASK_SECONDS)
        for following in self._following.values():
            following.cancel()
        self._demand.end()
        admin.close()
        await self._admins.end()
        log.info("stopped")
        return int(not all(well))

    def stop(self) -> None:
        """Let all workers finish what they have begun."""
        if self._stopping:
            return
        self._stopping = True
        log.info("draining", extra={"workers": len(self._workers)})
        if self._managing is not None:
            # Logs that are followed have no end of their own.
            self._managing.cancel()
        for worker in self._workers:
            worker.stop()
            self._loop.call_later(self._settings.drain_seconds + MORE_SECONDS, worker.kill)

    # -- the administrative port --------------------------------------------------------------------------------------

    def _connection(self) -> ServerConnection:
        return ServerConnection(self._administer, limits=Limits(), connections=self._admins, is_draining=lambda: False)

    def _administer(self, request: Request, responder: Responder) -> Coroutine[Any, Any, None] | Running | None:
        path = request.path
        if path in {"/livez", "/readyz"}:
            return self._probe(path, responder)
        if path == "/metrics":
            return self._metrics(responder)
        if path == DEMAND:
            return self._demand_access.serve(request, responder, self._follow_all)
        responder.send(Answer(404, b"There are /livez, /readyz, /metrics and /demand.\n", b"text/plain"))
        return None

    def _follow_all(self, responder: Responder) -> Running | None:
        if self._use.complete:
            return self._demand.follow(responder)
        responder.send(Answer(503, b"not every worker has listed everything yet\n", b"text/plain"))
        return None

    async def _probe(self, path: str, responder: Responder) -> None:
        answers = [text for _, text in await self._ask_all(path)]
        responder.send(merged_probe(answers, ["draining"] if self._stopping and path == "/readyz" else []))

    async def _metrics(self, responder: Responder) -> None:
        pages = [text for status, text in await self._ask_all("/metrics") if status == 200]
        responder.send(Answer(200, merge_metrics(pages, self._own(len(pages))), CONTENT_TYPE))

    def _own(self, answering: int) -> list[Metric]:
        starts = CounterMetricFamily("moorage_gateway_worker_starts", "Processes that were started.")
        starts.add_metric([], self._starts)
        there = GaugeMetricFamily("moorage_gateway_workers", "Processes whose metrics these are.", value=answering)
        return [starts, there]

    async def _ask_all(self, path: str) -> list[tuple[int, str]]:
        return await asyncio.gather(*(self._ask(worker, path) for worker in self._workers))

    async def _ask(self, worker: Worker, path: str) -> tuple[int, str]:
        answer = _Whole()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await worker.ask(path, answer)
        except (UpstreamGone, TimeoutError) as error:
            return 503, str(error) or f"no answer in {ASK_SECONDS:g} s"
        return answer.status, answer.content.decode("utf-8", "replace").strip()

    # -- what workers tell --------------------------------------------------------------------------------------------

    def _started(self, worker: Worker) -> None:
        self._starts += 1
        log.info("a worker has started", extra={"worker": worker.number, "pid": worker.pid})
        if worker.number not in self._following:
            self._following[worker.number] = self._loop.create_task(self._follow(worker))

    async def _follow(self, worker: Worker) -> None:
        """Take in what a worker tells of the use of models, and of those that come after it."""
        while True:
            lines = _Lines(worker.number, self._use)
            try:
                await worker.ask(DEMAND, lines)
            except UpstreamGone as gone:
                log.debug("a worker does not tell the use of models", extra={"worker": worker.number, "why": str(gone)})
            if lines.ended:
                return
            if lines.heard:
                self._use.lost(worker.number)
            await asyncio.sleep(FOLLOW_AGAIN_SECONDS)


class _Whole:
    """An answer, collected."""

    def __init__(self) -> None:
        self.status = 0
        self.content = bytearray()

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        self.status = status

    def body(self, data: bytes) -> None:
        self.content += data
        if len(self.content) > MOST_BYTES:
            raise AnswerTooLong("the answer is too long")


class _Lines:
    """The lines that one worker tells."""

    def __init__(self, worker: int, use: SharedUse) -> None:
        self._worker = worker
        self._use = use
        self._rest = b""
        self.heard = False
        self.ended = False
        """Whether it has told that nothing more will come."""

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        self.heard = status == 200

    def body(self, data: bytes) -> None:
        if not self.heard:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            raise AnswerTooLong("a line is too long")
        for line in lines:
            try:
                news = decode(line)
            except msgspec.MsgspecError as error:
                raise AnswerTooLong(f"a line cannot be read: {error}") from error
            self._use.news(self._worker, news)
            self.ended = self.ended or news.end


async def serve_by_workers(settings: Settings, login: Login) -> int:
    """Run workers until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    kube = Kube(login, NAME)
    try:
        master = Master(settings, DemandAccess(KubeReviews(kube, settings.audience), loop.time))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, master.stop)
        return await master.run()
    finally:
        await kube.close()
