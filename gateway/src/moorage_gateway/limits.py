"""Requests and tokens a minute of API keys. Each gateway pod keeps to them for itself.

A request is counted when it comes, whatever it gets but a 429 of ours. Its tokens are not known then: as many as it may
take are reserved, and when its answer has ended what it took is settled. So a burst overshoots by no more than the
requests that are under way took more than was reserved for them, and that is owed: nothing goes on until it has been
made up for. OpenAI's headers tell the state in every answer of a limited key.
"""

from collections.abc import Callable
from math import ceil
from typing import Final, Protocol

from moorage_common.http.message import Answer, Refusal
from moorage_common.openai_errors import error_body
from moorage_gateway import usage
from moorage_gateway.gcra import PERIOD, WHOLE, remaining, spent

TYPICAL_OUTPUT: Final = 256.0
"""Tokens of an answer of unsaid length, until a key's own answers have taught better."""
LEARNED: Final = 1 / 8
SWEEP_OVER: Final = 1024
"""Meters; with more, those that are as good as new are dropped now and then."""


_REQUESTS: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
)
_TOKENS: Final = b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"


class Limited(Protocol):
    """Somebody with limits."""

    @property
    def id(self) -> str:
        """Whose meter it is."""

    @property
    def requests_per_minute(self) -> int | None:
        """None is as many as they like."""

    @property
    def tokens_per_minute(self) -> int | None:
        """Of prompts and answers together; None is as many as they like."""


class Meter:
    """What one key has spent: the times at which its two buckets are full (see `gcra`), and what its answers are like.

    Three numbers, so that a store in shared memory can keep them.
    """

    __slots__ = ("requests_full_at", "tokens_full_at", "typical_output")

    def __init__(self) -> None:
        """Nothing is spent."""
        self.requests_full_at = 0.0
        self.tokens_full_at = 0.0
        self.typical_output = TYPICAL_OUTPUT


class Meters:
    """The meters of all keys, in this process."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._sweep_at = SWEEP_OVER

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._meters)

    def of(self, identity: str, now: float) -> Meter:
        """The meter of a key; one that has not been seen has spent nothing."""
        meter = self._meters.get(identity)
        if meter is None:
            if len(self._meters) >= self._sweep_at:
                self._sweep(now)
            meter = self._meters[identity] = Meter()
        return meter

    def _sweep(self, now: float) -> None:
        """Drop what says no more than no meter: only keys that exist have one, and these come and go."""
        self._meters = {
            identity: meter
            for identity, meter in self._meters.items()
            if meter.requests_full_at > now or meter.tokens_full_at > now
        }
        self._sweep_at = max(SWEEP_OVER, 2 * len(self._meters))


class Bill:
    """The tokens of one request: reserved, and settled once."""

    __slots__ = ("_limit", "_meter", "_now", "reserved")

    def __init__(self, meter: Meter, limit: int, reserved: int) -> None:
        """`reserved` tokens have been spent on `meter`."""
        self._meter = meter
        self._limit = limit
        self.reserved = self._now = reserved

    def renew(self) -> None:
        """Reserve as much again: what was settled goes on with another request to a pod."""
        self._spend(self.reserved)

    def settle(self, tokens: usage.Tokens) -> None:
        """Spend what it took in place of what was reserved."""
        meter = self._meter
        # On top of what the bucket was, as if it had been known at the beginning.
        self._spend(tokens.input + tokens.output)
        if tokens.output:
            meter.typical_output += (tokens.output - meter.typical_output) * LEARNED

    def _spend(self, tokens: int) -> None:
        self._meter.tokens_full_at += (tokens - self._now) * PERIOD / self._limit
        self._now = tokens


class OverLimit(Refusal):
    """A request that is one too many of its key."""

    def __init__(self, what: str, limit: int, seconds: float, asked: int = 1) -> None:
        """Over its limit of `what` (requests, tokens) a minute, and for so many seconds more."""
        super().__init__(_too_many(what, limit, seconds, asked))
        self.what = what


class Limiter:
    """Keeps keys to their limits."""

    def __init__(self, clock: Callable[[], float], meters: Meters | None = None) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._meters = meters if meters is not None else Meters()

    def count(self, key: Limited) -> None:
        """Count a request that goes to no model; OverLimit, and then it is not counted."""
        limit = key.requests_per_minute
        if limit is None:
            return
        now = self._clock()
        meter = self._meters.of(key.id, now)
        full_at = spent(meter.requests_full_at, now, 1, limit)
        if full_at - now > WHOLE:
            raise OverLimit("requests", limit, full_at - now - PERIOD)
        meter.requests_full_at = full_at

    def admit(self, key: Limited, body: bytes, wish: usage.Wish | None) -> tuple[Bill | None, bytes]:
        """Count a request to a model and reserve its tokens; OverLimit, and then nothing of it is counted.

        `wish` is what it says of its answer, None where that is not made of tokens. Gives the bill to settle, where
        tokens are limited, and the lines of a head that tell how much is left.
        """
        now = self._clock()
        meter = self._meters.of(key.id, now)
        bill, lines = None, b""
        requests, tokens = key.requests_per_minute, key.tokens_per_minute
        if requests is not None:
            requests_full_at = spent(meter.requests_full_at, now, 1, requests)
            if requests_full_at - now > WHOLE:
                raise OverLimit("requests", requests, requests_full_at - now - PERIOD)
            lines = _line(_REQUESTS, requests, requests_full_at - now)
        if tokens is not None:
            reserved = usage.of_input(body) + (wish.tokens(meter.typical_output) if wish is not None else 0)
            # An estimate of more than there ever is waits for a full bucket: it may be wrong, and what it took is
            # settled.
            reserved = min(reserved, tokens)
            full_at = spent(meter.tokens_full_at, now, reserved, tokens)
            if full_at - now > WHOLE:
                raise OverLimit("tokens", tokens, full_at - now - PERIOD, reserved)
            meter.tokens_full_at = full_at
            bill = Bill(meter, tokens, reserved)
            lines += _line(_TOKENS, tokens, full_at - now)
        if requests is not None:
            meter.requests_full_at = requests_full_at
        return bill, lines

    def headers(self, key: Limited) -> bytes:
        """The lines of a head that tell how much is left: OpenAI's names and formats."""
        now = self._clock()
        meter = self._meters.of(key.id, now)
        lines = b""
        if (limit := key.requests_per_minute) is not None:
            lines = _line(_REQUESTS, limit, meter.requests_full_at - now)
        if (limit := key.tokens_per_minute) is not None:
            lines += _line(_TOKENS, limit, meter.tokens_full_at - now)
        return lines


def _line(text: bytes, limit: int, seconds: float) -> bytes:
    """Fill in how much is left, and how many seconds the bucket needs to be full."""
    return text % (limit, remaining(seconds, limit), duration(seconds))


def duration(seconds: float) -> bytes:
    """Write a time as OpenAI's headers have it.

    >>> [duration(seconds) for seconds in (-1, 0.0123, 0.9999, 1.2, 360, 7300)]
    [b'0s', b'13ms', b'1s', b'2s', b'6m0s', b'2h1m40s']
    """
    if seconds <= 0:
        return b"0s"
    if seconds <= 0.999:
        return b"%dms" % ceil(seconds * 1000)
    whole = ceil(seconds)
    if whole < 60:
        return b"%ds" % whole
    if whole < 3600:
        return b"%dm%ds" % divmod(whole, 60)
    return b"%dh%dm%ds" % (whole // 3600, whole // 60 % 60, whole % 60)


def _too_many(what: str, limit: int, seconds: float, asked: int = 1) -> Answer:
    """Give the answer to a key that is over its limit of `what` a minute."""
    again = duration(seconds).decode()
    wanted = f" This request may take {asked} of them." if asked > 1 else ""
    body = error_body(
        f"This key may use {limit} {what} per minute.{wanted} Please try again in {again}.",
        kind=what,
        code="rate_limit_exceeded",
    )
    return Answer(429, body, headers=retry_after(seconds))


def retry_after(seconds: float) -> tuple[tuple[bytes, bytes], ...]:
    """Give the headers for a client that comes too soon; OpenAI's clients read the one in milliseconds first."""
    return (
        (b"Retry-After", b"%d" % max(1, ceil(seconds))),
        (b"retry-after-ms", b"%d" % max(1, ceil(seconds * 1000))),
    )
