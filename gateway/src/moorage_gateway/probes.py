"""The answers to `/livez` and `/readyz`: why not, and what the API server does not let us watch, as JSON. Pure."""

from collections.abc import Iterable

import msgspec

from moorage_common.http.message import JSON, Answer


class Probe(msgspec.Struct, omit_defaults=True):
    """What a probe is told; it is well where there are no reasons against it."""

    ok: bool
    reasons: list[str]
    unwatched: list[str] | None = None
    """No reason not to be ready: all else is served."""


def probe_answer(reasons: list[str], unwatched: Iterable[str] | None = None) -> Answer:
    """200 without reasons, else 503."""
    probe = Probe(not reasons, reasons, None if unwatched is None else sorted(unwatched))
    return Answer(503 if reasons else 200, msgspec.json.encode(probe) + b"\n", JSON)


def merged_probe(answers: Iterable[str], more: Iterable[str] = ()) -> Answer:
    """What several workers answer, as one; `more` are reasons of our own."""
    reasons: list[str] = []
    unwatched: set[str] | None = None
    for number, text in enumerate(answers):
        try:
            probe = msgspec.json.decode(text, type=Probe)
        except msgspec.MsgspecError:
            probe = Probe(ok=False, reasons=[text])
        reasons += [f"worker {number}: {reason}" for reason in probe.reasons]
        if probe.unwatched is not None:
            unwatched = (unwatched or set()) | set(probe.unwatched)
    return probe_answer([*reasons, *more], unwatched)
