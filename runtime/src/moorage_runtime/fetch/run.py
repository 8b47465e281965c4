"""The whole download: what is there already, what is listed, what of it is wanted, and all of that, several at once."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.bucket import Bucket, is_local
from moorage_runtime.fetch.folder import Folder
from moorage_runtime.fetch.http import Network
from moorage_runtime.fetch.hub import ENDPOINT, Hub
from moorage_runtime.fetch.names import is_weights
from moorage_runtime.fetch.origin import Origin
from moorage_runtime.fetch.patience import Patience, persist
from moorage_runtime.fetch.plan import Choice, Wanted, plan
from moorage_runtime.fetch.progress import Progress
from moorage_runtime.fetch.secrets import Secrets
from moorage_runtime.fetch.settings import FetchSettings
from moorage_runtime.fetch.source import BucketAddress, HubAddress, parse
from moorage_runtime.fetch.space import Space, free_bytes
from moorage_runtime.fetch.transfer import Setting, Stopped, Transfer
from moorage_runtime.fetch.web import Web
from moorage_runtime.hf_folder import check_small_files
from moorage_runtime.settings import Backend

log = logging.getLogger(__name__)


@dataclass
class Fetch:
    """One download. `run` blocks until all is there; `stop`, from another thread, ends it."""

    settings: FetchSettings
    secrets: Secrets
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], None] | None = None
    """Waits in place of `stop`; for tests."""
    free: Callable[[Path], int] = free_bytes

    def run(self) -> None:
        """Fetch all that is missing; raise LoadFailure where it cannot be had, Stopped when told to end."""
        folder = Folder(self.settings.model_folder, _request(self.settings))
        if folder.is_complete():
            log.info("all files are here already", extra={"version": folder.version})
            return
        if rejection := folder.rejection():
            raise LoadFailure(LoadError.CHECKSUM_MISMATCH, f"{rejection} (less than an hour ago; it is not tried yet)")
        origin, network = self._origin()
        log.info("asking what is there", extra={"source": origin.where})
        listing = persist(origin.list, Patience(self.settings.fetch_attempts), self._wait)
        wanted = plan(listing.files, self._choice(), origin.where)
        space = Space(self.settings.model_folder, self.settings.model_size_limit, self.free)
        try:
            folder.begin(wanted, listing.version)
        except OSError as error:
            raise space.failure(error) from error
        missing = self._look(folder, wanted, space)
        log.info("fetching", extra={"files": len(missing), "of": len(wanted), "version": listing.version})
        shared = Setting(
            origin=origin,
            network=network,
            folder=folder,
            progress=self.progress,
            space=space,
            stop=self.stop,
            attempts=self.settings.fetch_attempts,
            wait=self._wait,
        )
        self._run_all([Transfer(file, shared) for file in missing if not is_weights(file.target)])
        try:
            check_small_files(folder.path, [file.target for file in wanted if not is_weights(file.target)])
        except OSError as error:
            raise space.failure(error) from error
        self._run_all([Transfer(file, shared) for file in missing if is_weights(file.target)])
        try:
            folder.complete()
        except OSError as error:
            raise space.failure(error) from error
        log.info("all files are here", extra={"bytes": self.progress.now().bytes_done, "version": listing.version})

    def _origin(self) -> tuple[Origin, Network]:
        settings, address = self.settings, parse(self.settings.model_source)
        if isinstance(address, HubAddress):
            network = Network(settings.fetch_stall_seconds, loopback=settings.hf_endpoint != ENDPOINT)
            return Hub(address, self.secrets, network, settings.hf_endpoint), network
        if isinstance(address, BucketAddress):
            network = Network(settings.fetch_stall_seconds, loopback=is_local(self.secrets))
            return Bucket(address, self.secrets, settings.fetch_stall_seconds), network
        return Web(address, settings.model_files), Network(settings.fetch_stall_seconds)

    def _choice(self) -> Choice:
        settings = self.settings
        return Choice(
            gguf=settings.model_backend == Backend.LLAMACPP.value,
            quantization=settings.model_quantization,
            files=settings.model_files,
            sha256=settings.model_sha256,
        )

    def _look(self, folder: Folder, wanted: Sequence[Wanted], space: Space) -> list[Wanted]:
        """Sort out what is there already, and see that the rest has room."""
        there = {file.target: folder.size_of(file) for file in wanted}
        self.progress.expect({file.target: there[file.target] or file.remote.size for file in wanted})
        for name, size in there.items():
            if size is not None:
                self.progress.there(name, size)
                self.progress.finished(name, size)
                space.claim(name, there=size, left=0)
        missing = [file for file in wanted if there[file.target] is None]
        for file in missing:
            begun = min(folder.size_of_part(file), file.remote.size or 0)
            if file.remote.size is not None:
                space.claim(file.target, there=begun, left=file.remote.size - begun)
        return missing

    def _wait(self, seconds: float, why: str) -> None:
        log.warning("trying again", extra={"seconds": round(seconds, 1), "cause": why})
        self.progress.waits(f"trying again in {seconds:.0f} s: {why}")
        if self.sleep:
            self.sleep(seconds)
        elif self.stop.wait(seconds):
            raise Stopped
        if self.stop.is_set():
            raise Stopped

    def _run_all(self, transfers: Sequence[Transfer]) -> None:
        """Run transfers, several at a time; the first failure ends them all."""
        waiting: queue.SimpleQueue[Transfer] = queue.SimpleQueue()
        for transfer in transfers:
            waiting.put(transfer)
        failures: list[BaseException] = []
        count = min(self.settings.fetch_concurrency, len(transfers))
        # Daemons: one that waits for a byte must not keep the process from ending.
        workers = [threading.Thread(target=self._work, args=(waiting, failures), daemon=True) for _ in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for failure in failures:
            if not isinstance(failure, Stopped):
                raise failure
        if failures or self.stop.is_set():
            raise Stopped

    def _work(self, waiting: queue.SimpleQueue[Transfer], failures: list[BaseException]) -> None:
        while not self.stop.is_set():
            try:
                transfer = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                transfer.run()
            except BaseException as failure:  # noqa: BLE001 - it goes to the thread that waits for this one
                failures.append(failure)
                self.stop.set()


def _request(settings: FetchSettings) -> str:
    """Name all that decides what is fetched; a folder that was filled for another request is not this model's."""
    asked = (
        settings.model_source,
        settings.model_backend == Backend.LLAMACPP.value,
        settings.model_quantization,
        settings.model_files,
        settings.model_sha256.lower(),
    )
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
