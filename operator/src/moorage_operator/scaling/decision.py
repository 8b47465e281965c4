"""How many replicas a model should have, by its use through all gateways: `decide`. Pure.

Up at once, down when fewer have been enough for a while, to none after a while without use. What is not known of a
gateway never takes a replica away.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from moorage_operator.api.v1alpha1 import InferenceModelSpec


class Rules(NamedTuple):
    """What the spec says; times in seconds."""

    least: int
    most: int
    target: int
    """Requests for each replica."""
    idle: float
    delay: float


class Use(NamedTuple):
    """How a model is used through all gateways together."""

    requests: int = 0
    """That are worked on, or wait."""
    last: float = 0.0
    """When a request was there for the last time, as far as is known."""
    known: bool = False
    """Whether every gateway has reported."""
    served: bool = False
    """Whether a gateway serves it: without one it cannot be woken."""


class Asked(NamedTuple):
    """A number of replicas that was enough until a time."""

    until: float
    replicas: int


@dataclass(frozen=True)
class Past:
    """What was decided last: `replicas` because `asked` were enough, and more until the times in `before`."""

    replicas: int
    asked: int
    since: float
    """When the model was started, woken, or had loaded; it is not put to sleep sooner than an idle time after this."""
    before: tuple[Asked, ...] = ()


class Decision(NamedTuple):
    """The number of replicas, with what it was decided from, and after which seconds to look again if nothing comes."""

    past: Past
    again: float | None = None

    @property
    def replicas(self) -> int:
        """The desired replicas."""
        return self.past.replicas


def rules(spec: InferenceModelSpec) -> Rules | None:
    """What a spec says; None where it says the number itself."""
    scaling = spec.scaling
    if scaling is None or spec.suspend:
        return None
    target = scaling.target_concurrency or spec.concurrency
    return Rules(scaling.min_replicas, scaling.max_replicas, target, scaling.idle_seconds, scaling.delay_seconds)


def begin(rules: Rules, found: int | None, now: float) -> Past:
    """The past of a model of which nothing is known but that it has `found` replicas; None: it is new, 0: it sleeps."""
    if found == 0 and rules.least == 0:
        return Past(0, 0, now)
    replicas = _within(rules, found or 1)
    return Past(replicas, replicas, now)


def decide(rules: Rules, use: Use, past: Past, now: float) -> Decision:
    """How many replicas there should be now; `now` and all times are of one monotonic clock, in seconds."""
    asleep = past.replicas == 0
    if asleep and rules.least == 0 and use.requests == 0:
        return Decision(past)
    needed = _within(rules, math.ceil(use.requests / rules.target))
    if asleep:
        return Decision(Past(needed, needed, now))
    if rules.least == 0 and use.requests == 0 and use.known and use.served:
        idle_at = max(use.last, past.since) + rules.idle
        if idle_at <= now:
            return Decision(Past(0, 0, past.since))
    else:
        idle_at = math.inf
    if not use.known:
        # Requests that are not known of may need every replica that there is.
        needed = max(needed, min(past.replicas, rules.most))
    before = _before(rules, past, needed, now)
    replicas = min(max(needed, *(asked.replicas for asked in before)) if before else needed, rules.most)
    fewer_at = min((asked.until + rules.delay for asked in before), default=math.inf)
    soonest = min(idle_at, fewer_at)
    again = soonest - now if soonest < math.inf else None
    return Decision(Past(replicas, needed, past.since, before), again)


def _before(rules: Rules, past: Past, needed: int, now: float) -> tuple[Asked, ...]:
    """The numbers above `needed` that were asked for within the delay, each until its time; falling, as times rise."""
    ended = (*past.before, Asked(now, past.asked)) if past.asked > needed else past.before
    recent = [asked for asked in ended if asked.until + rules.delay > now and asked.replicas > needed]
    return tuple(
        asked
        for place, asked in enumerate(recent)
        if all(asked.replicas > later.replicas for later in recent[place + 1 :])
    )


def _within(rules: Rules, replicas: int) -> int:
    return max(1, rules.least, min(replicas, rules.most))
