"""What an engine is to the runtime: a plan made in the front, a server run in a child process, errors made ours.

Flow: the supervisor starts `engines.child`, which imports the engine's libraries; meanwhile `Engine.plan(settings)`
checks the model's files and says how to load them → the child calls `Engine.serve` with the plan's config → the engine
serves HTTP on loopback and announces its port → the front relays bytes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from moorage_common.facts import EngineFacts, LoadError

if TYPE_CHECKING:
    from moorage_common.http.message import Answer
    from moorage_common.shape import Shape
    from moorage_runtime.settings import Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a checked model will be loaded and asked."""

    served_name: str
    facts: EngineFacts
    config: bytes
    """For `serve` in the child; only the engine knows its form."""
    smoke_path: str
    smoke_body: bytes
    """The smallest real request; an engine that answers it is ready."""
    probe_path: str
    """A route whose answer needs the engine's work loop, not only its HTTP threads."""
    routes: frozenset[str]
    """The POST routes that the engine has."""
    refused: frozenset[str] = frozenset()
    """Fields of requests that the engine has not."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What the engine calls a field of requests."""
    capped: Mapping[str, int] = field(default_factory=dict)
    """Fields of requests that may say more than the engine takes, with the most that it takes."""
    chats_only: frozenset[str] = frozenset()
    """Fields of requests that the engine has for chats, and not for completions."""
    one_answer: bool = False
    """The engine does not tell the tokens of several answers, so a request is for one."""
    formats_as_schemas: bool = False
    """For completions, the engine takes no `response_format`, but `json_schema`."""
    vocabulary: int | None = None
    """How many tokens the model has, where the front knows."""
    metrics_path: str | None = None
    """A route with the engine's own metrics."""
    metrics_prefix: bytes = b""
    """What the names of those metrics begin with that are passed on."""
    longest_token: int | None = None
    """Bytes of text that one token can stand for at most, where that is certain (`vocabulary`)."""
    shape: Shape | None = None
    """What the header of the model's files says of its size."""
    works_on_cpu: bool = True
    """A request that runs uses CPU time: an idle process with running requests hangs."""
    notes: tuple[str, ...] = ()
    """What a person should know of the plan; logged once."""


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child says through its pipe, once: where it listens, or why it cannot.

    `device` is what the model really runs on, as in EngineFacts; `memory_bytes` what it takes of an accelerator.
    """

    port: int = 0
    version: str | None = None
    device: str | None = None
    memory_bytes: int | None = None
    quantization: str | None = None
    """What the weights in memory really have; None where the files' word is enough."""
    dtype: str | None = None
    weights_bytes: int | None = None
    failure: LoadError | None = None
    message: str = ""


Announce = Callable[[Announcement], None]


class Engine(Protocol):
    """One engine. `plan`, `error` and `log_level` run in the front, `serve` in the child."""

    name: str
    environment: Mapping[str, str]
    """Variables that the child gets on top of ours."""

    def plan(self, settings: Settings) -> Plan:
        """Check the model and decide how to load it; raise LoadFailure where that cannot work."""

    def preload(self) -> None:
        """Import what takes time; the child does it before it knows what to load."""

    def serve(self, config: bytes, announce: Announce) -> None:
        """Load the model, announce a port on loopback, and serve until the process ends."""

    def error(self, status: int, error: dict[str, Any]) -> Answer:
        """Make an error of the engine the answer that a client gets."""

    def log_line(self, line: str) -> tuple[int, str]:
        """Give level and text of a line that the engine wrote."""
