"""What the routes work with: settings, engine, door and counters of one runtime."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from moorage_common.facts import Phase
from moorage_common.http.relay import Relay
from moorage_runtime.admission import Admission
from moorage_runtime.engines import load_engine
from moorage_runtime.metrics import Metrics
from moorage_runtime.process import Child
from moorage_runtime.settings import RequestDefaults, Settings
from moorage_runtime.supervise import DEFAULT_POLICY, SupervisionPolicy, Supervisor, Traffic


@dataclass
class Service:
    """One runtime, as its routes see it."""

    settings: Settings
    admission: Admission
    metrics: Metrics
    supervisor: Supervisor
    relays: set[Relay]
    """The answers that the engine is working on."""
    defaults: Mapping[str, msgspec.Raw] = field(default_factory=dict)
    """The fields that a request gets that leaves them out."""
    draining: bool = False
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(
        cls, settings: Settings, *, policy: SupervisionPolicy = DEFAULT_POLICY, first: Child | None = None
    ) -> "Service":
        """Put a runtime together; nothing starts yet."""
        relays: set[Relay] = set()
        admission = Admission(settings.concurrency, settings.queue_limit)
        supervisor = Supervisor(
            load_engine(settings.model_backend.value),
            settings,
            traffic=Traffic(silence=lambda: _silence(relays), idle=admission.idle),
            policy=policy,
            spare=first,
        )
        metrics = Metrics(
            running=lambda: admission.running,
            waiting=lambda: admission.waiting,
            detailed=settings.enable_detailed_metrics,
        )
        metrics.watch_engine(
            ready=lambda: supervisor.phase is Phase.READY,
            restarts=lambda: supervisor.restarts,
            unloads=lambda: supervisor.unloads,
            load_phases=lambda: supervisor.load_phases,
        )
        return cls(settings, admission, metrics, supervisor, relays, _defaults(settings.request_defaults))

    @property
    def takes_requests(self) -> bool:
        """True when a request that comes now is answered, be it after a load."""
        return not self.draining and (self.phase is Phase.READY or self.supervisor.asleep)

    @property
    def phase(self) -> Phase:
        """Where the runtime is on its way."""
        return Phase.DRAINING if self.draining else self.supervisor.phase


def _defaults(asked: RequestDefaults | None) -> dict[str, msgspec.Raw]:
    """Write each default as it stands in a request."""
    given = {} if asked is None else msgspec.to_builtins(asked)
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in given.items()}


def _silence(relays: set[Relay]) -> float:
    """Give the seconds since any running request last got a byte; one whose client does not read says nothing."""
    last = [relay.last_byte for relay in relays if not relay.held_back]
    return asyncio.get_running_loop().time() - max(last) if last else 0.0
