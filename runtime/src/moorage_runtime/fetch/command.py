"""The process of `moorage-runtime fetch`: the download in a thread, its progress in the log and over HTTP, its end.

`/health/detailed` answers in the words of every runtime (moorage_common.facts.Health), on the pod's port: the operator
asks a pod that fetches as it asks one that loads. Nothing here needs the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from moorage_common.facts import Health, LoadError, Phase, Termination
from moorage_common.http.connections import Connections
from moorage_common.http.message import Answer, Limits, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_common.logs import JsonFormatter
from moorage_runtime.errors import LoadFailure, not_found, report_termination
from moorage_runtime.fetch.run import Fetch
from moorage_runtime.fetch.secrets import Secrets, read_secrets
from moorage_runtime.fetch.settings import FetchSettings, read_fetch_settings
from moorage_runtime.fetch.transfer import Stopped
from moorage_runtime.settings import SettingsError, termination_log

log = logging.getLogger(__name__)

LOG_SECONDS: Final = 5.0
ENDED_BY_SIGNAL: Final = 143


class HidingFormatter(JsonFormatter):
    """Writes records without any secret in them."""

    def __init__(self, secrets: Secrets) -> None:
        """Hide `secrets`."""
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Write the record."""
        return self._secrets.hide(super().format(record))


def main(environment: Mapping[str, str]) -> int:
    """Fetch, and give the exit status."""
    secrets = read_secrets(environment)
    _configure("INFO", secrets)
    try:
        settings = read_fetch_settings(environment)
    except SettingsError as error:
        configured = environment.get("TERMINATION_MESSAGE_PATH")
        termination = Termination(LoadError.INVALID_MODEL_CONFIG, secrets.hide(str(error)))
        report_termination(termination, termination_log(Path(configured) if configured else None))
        return 1
    _configure(settings.log_level, secrets)
    log.info("settings", extra=msgspec.to_builtins(settings, enc_hook=str))
    return asyncio.run(_live(Fetch(settings, secrets)))


def _configure(level: str, secrets: Secrets) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HidingFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What these say at DEBUG has headers and signed addresses in it.
    for name in ("asyncio", "boto3", "botocore", "urllib3", "s3transfer"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _live(fetch: Fetch) -> int:
    """Run the download beside the HTTP server until it ends, or a signal ends it."""
    loop = asyncio.get_running_loop()
    over, stopped = asyncio.Event(), asyncio.Event()
    endings: list[Termination | None] = []

    def work() -> None:
        endings.append(_ending_of(fetch))
        # The loop is gone if a signal came first.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    listener = await _listen(fetch)
    threading.Thread(target=work, daemon=True).start()
    waiting = [asyncio.create_task(event.wait()) for event in (over, stopped)]
    reporting = asyncio.create_task(_report(fetch))
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*waiting, reporting):
            task.cancel()
        if listener:
            listener.close()
    if not over.is_set():
        fetch.stop.set()
        log.info("stopped; what has come is kept")
        return ENDED_BY_SIGNAL
    return _end(fetch, endings[0])


def _end(fetch: Fetch, ending: Termination | None) -> int:
    """Leave the reason of a failure where the kubelet looks for it."""
    if ending is None:
        return 0
    message = fetch.secrets.hide(ending.message)
    report_termination(Termination(ending.reason, message), fetch.settings.termination_log)
    return 1


def _ending_of(fetch: Fetch) -> Termination | None:
    """Run the download; give the reason if it fails."""
    try:
        fetch.run()
    except LoadFailure as failure:
        return failure.termination
    except Stopped:
        return None
    except Exception as error:
        log.exception("the download failed")
        text = f"an error in the runtime itself: {type(error).__name__}: {error}"
        return Termination(LoadError.DOWNLOAD_FAILED, text)
    return None


async def _report(fetch: Fetch) -> None:
    """Write the progress into the log, every few seconds."""
    while True:
        await asyncio.sleep(LOG_SECONDS)
        now = fetch.progress.now()
        log.info("downloading: " + now.words(), extra=msgspec.to_builtins(now))


async def _listen(fetch: Fetch) -> asyncio.Server | None:
    """Tell the progress over HTTP; where that cannot be, fetch all the same."""
    connections = Connections()
    settings: FetchSettings = fetch.settings

    async def handle(request: Request, responder: Responder) -> None:
        responder.send(_answer(fetch, request))

    def connection() -> ServerConnection:
        return ServerConnection(handle, limits=Limits(), connections=connections, is_draining=lambda: False)

    try:
        listener = await asyncio.get_running_loop().create_server(connection, settings.host, settings.port)
    except OSError as error:
        log.warning("the progress is told in the log only", extra={"port": settings.port, "error": error.strerror})
        return None
    log.info("listening", extra={"host": settings.host, "port": listener.sockets[0].getsockname()[1]})
    return listener


def _answer(fetch: Fetch, request: Request) -> Answer:
    if request.method not in ("GET", "HEAD"):
        return not_found("There is nothing but GET while a model is fetched.")
    if request.path == "/health/detailed":
        return Answer(200, msgspec.json.encode(Health(Phase.DOWNLOADING, download=fetch.progress.now())))
    if request.path == "/health":
        return json_answer(200, {"status": Phase.DOWNLOADING})
    if request.path in ("/health/ready", "/ready"):
        return json_answer(503, {"status": Phase.DOWNLOADING})
    return not_found("The model is being fetched; there is nothing here but /health/detailed.")
