"""What is checked and noted of every request beside where it goes: limits, failed logins, its ID, metrics, the log.

The front asks it at each turn. What a request costs here is paid by all, so nothing is made that nobody wants: headers
of limits for limited keys only, a line of the log only where one is to be written.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from moorage_common.http.message import Answer, Refusal, Request
from moorage_common.http.responder import Responder
from moorage_common.openai_errors import error_body
from moorage_gateway import kinds, usage
from moorage_gateway.access import bearer, claimed_key
from moorage_gateway.accesslog import AccessLog, Line
from moorage_gateway.addresses import Clients, group
from moorage_gateway.audit import FailedLogins
from moorage_gateway.callers import Caller
from moorage_gateway.exchange import Exchange
from moorage_gateway.limits import Bill, Limiter, OverLimit, retry_after
from moorage_gateway.logins import FAILURES_A_MINUTE, Logins
from moorage_gateway.metrics import Metrics
from moorage_gateway.trace import REQUEST_ID, Traces, trace_id

BY_PATH: Final = "/models/"
"""Before NAMESPACE/NAME and a route: it says the model in the address."""

NO_TOKENS: Final = usage.Tokens(0, 0)

WITHOUT_OUTPUT: Final = frozenset({"/v1/embeddings", "/v1/rerank", "/similarity"})
"""Routes whose answers are no tokens; with all of /embeddings/."""


class ModelRefusal(Refusal):
    """A refusal for a model that the caller may use."""

    def __init__(self, answer: Answer, model: str, kind: str = kinds.CAPACITY) -> None:
        """It is about `model`, and of that kind."""
        super().__init__(answer)
        self.model = model
        self.kind = kind


class Attempt:
    """One try to log in with a token that is not known (`tokens.Attempt`)."""

    def __init__(self, logins: Logins, address: str) -> None:
        """It comes from `address`."""
        self._logins = logins
        self._group = group(address)

    def check(self) -> None:
        """Refusal (429) after too many failures."""
        if (seconds := self._logins.wait(self._group)) > 0:
            raise Refusal(_too_many_failures(seconds))

    def failed(self) -> None:
        """Count one more."""
        self._logins.failed(self._group)

    def good(self) -> None:
        """Count it no more."""
        self._logins.good(self._group)


@dataclass
class Desk:
    """Everything of that for one process. `clock` is monotonic, in seconds."""

    clock: Callable[[], float]
    metrics: Metrics = field(default_factory=Metrics)
    clients: Clients = field(default_factory=Clients)
    traces: Traces = field(default_factory=lambda: Traces(make=False))
    log: AccessLog | None = None
    failed_logins_per_minute: int = FAILURES_A_MINUTE
    on_end: Callable[[Exchange], None] | None = None
    routes: frozenset[str] = frozenset()
    """Those that there are; set by the front."""

    def __post_init__(self) -> None:
        """Nobody has asked anything yet."""
        self.limiter = Limiter(self.clock)
        self.logins = Logins(self.clock, self.failed_logins_per_minute)
        self.audit = FailedLogins(self.clock)

    # -- at the beginning ---------------------------------------------------------------------------------------------

    def begin(self, request: Request, responder: Responder) -> None:
        """Give a request its ID, which every answer to it has."""
        responder.lines = b"x-request-id: " + self.traces.mark(request.headers) + b"\r\n"

    def attempt(self, request: Request, responder: Responder) -> Attempt:
        """Begin to look who somebody is that is not known."""
        return Attempt(self.logins, self.clients.address(responder.peer, request.headers))

    def admit(
        self, caller: Caller, path: str, body: bytes, responder: Responder, wish: usage.Wish | None = None
    ) -> Bill | None:
        """Count the request of a limited caller to a model and reserve its tokens; OverLimit (429).

        `wish` is what the body says of its answer, if that has been read.
        """
        if not has_output(path):
            wish = None
        elif wish is None:
            wish = usage.wish_of(body)
        bill, lines = self.limiter.admit(caller, body, wish)
        responder.lines += lines
        return bill

    # -- at the end ---------------------------------------------------------------------------------------------------

    def not_let_in(self, request: Request, responder: Responder, unauthorized: Answer) -> None:
        """Answer somebody without a valid credential: 401, or 429 after too many failures."""
        token = bearer(request.headers.get(b"authorization"))
        answer = unauthorized
        if token is not None:
            address = self.clients.address(responder.peer, request.headers)
            key = claimed_key(token)
            if key is not None:
                # It was checked here, so that a good one would have passed whoever has failed before.
                seconds = self.logins.wait(group(address), key)
                self.logins.failed(group(address), key)
                if seconds > 0:
                    answer = _too_many_failures(seconds)
            self._tell(request, address, key, too_many=answer is not unauthorized)
        self.refuse(Refusal(answer), None, request, responder)

    def turned_away(self, refusal: Refusal, request: Request, responder: Responder) -> None:
        """Answer somebody of whom it was not found out who they are."""
        if refusal.answer.status == 429:
            self._tell(request, self.clients.address(responder.peer, request.headers), None, too_many=True)
        self.refuse(refusal, None, request, responder)

    def refuse(self, refusal: Refusal, caller: Caller | None, request: Request, responder: Responder) -> None:
        """Answer a request that goes to no model."""
        if caller is not None and caller.limited:
            refusal = self._counted(refusal, caller, responder)
        kind = kinds.CLIENT if refusal.answer.status < 500 else kinds.CAPACITY
        model = ""
        if isinstance(refusal, ModelRefusal):
            model, kind = refusal.model, refusal.kind
        responder.send(refusal.answer)
        self.metrics.answered(model, refusal.answer.status, kind)
        if self.log is not None and self.log.wants(failure=True):
            line = self.log.line(refusal.answer.status)
            line.model, line.error = model, kind
            self._log(self.log, request, responder, caller, line)

    def served(self, answer: Answer, caller: Caller, request: Request, responder: Responder) -> None:
        """Send an answer of our own that is what was asked for; OverLimit (429)."""
        if caller.limited:
            self.limiter.count(caller)
            responder.lines += self.limiter.headers(caller)
        responder.send(answer)
        self.metrics.answered("", answer.status, "")
        if self.log is not None and self.log.wants(failure=False):
            line = self.log.line(answer.status)
            line.bytes_out = len(answer.body)
            self._log(self.log, request, responder, caller, line)

    def ended(self, exchange: Exchange) -> None:
        """Take note of a request that has been with a model."""
        tokens, kind = NO_TOKENS, ""
        if exchange.status == 200:
            tokens = usage.told(exchange.tail) or _estimate(exchange)
        if exchange.status != 200 or exchange.error:
            kind = kinds.kind_of(exchange.status, exchange.error)
        bill = exchange.order.bill
        if bill is not None and not (exchange.status == 0 and exchange.error == "client"):
            # Of a client that left before its answer began nobody knows what it took: what was reserved stands.
            bill.settle(tokens)
        self.metrics.ended(exchange, tokens, kind)
        if self.log is not None and self.log.wants(failure=kind != ""):
            self._log_exchange(self.log, exchange, tokens, kind)
        if self.on_end is not None:
            self.on_end(exchange)

    def _counted(self, refusal: Refusal, caller: Caller, responder: Responder) -> Refusal:
        """Count a request of a limited caller that is refused; gives the refusal that it gets."""
        try:
            if not isinstance(refusal, OverLimit):
                self.limiter.count(caller)
        except OverLimit as over:
            refusal = over
        if isinstance(refusal, OverLimit):
            self.metrics.limited(caller.name, refusal.what)
        responder.lines += self.limiter.headers(caller)
        return refusal

    def _log_exchange(self, log: AccessLog, exchange: Exchange, tokens: usage.Tokens, kind: str) -> None:
        order = exchange.order
        line = log.line(exchange.status)
        line.model, line.caller, line.pod, line.error = order.model, order.caller, exchange.pod, kind
        line.bytes_out = exchange.bytes_out
        line.tokens_in, line.tokens_out = tokens.input, tokens.output
        line.tokens_estimated = tokens.estimated
        line.seconds = round(exchange.now() - exchange.begun, 6)
        line.ttft_seconds = round(max(0.0, exchange.first_byte - exchange.begun), 6)
        self._log(log, order.request, order.client, None, line)

    def _log(self, log: AccessLog, request: Request, responder: Responder, caller: Caller | None, line: Line) -> None:
        line.caller = line.caller or (caller.name if caller is not None else "")
        line.method = request.method
        line.route = self._route(request.path)
        line.client = self.clients.address(responder.peer, request.headers)
        line.bytes_in = len(request.body)
        line.request_id = request.headers[REQUEST_ID].decode("latin-1")
        line.trace_id = trace_id(request.headers)
        log.add(line)

    def _route(self, path: str) -> str:
        """Name the route, and nothing that somebody made up: a path may hold what belongs in no log."""
        if path.startswith(BY_PATH):
            path = "/" + path[len(BY_PATH) :].partition("/")[2].partition("/")[2]
        return path if path in self.routes else "other"

    def _tell(self, request: Request, address: str, key: str | None, *, too_many: bool) -> None:
        self.metrics.login_failed(too_many=too_many)
        request_id = request.headers[REQUEST_ID].decode("latin-1")
        self.audit.tell(client=address, key=key, request_id=request_id, refused_early=too_many)


def _estimate(exchange: Exchange) -> usage.Tokens:
    """What a request took whose answer does not say."""
    path, body = exchange.order.path, exchange.order.body
    out = exchange.events if exchange.streamed else exchange.bytes_out // usage.BYTES_A_TOKEN
    return usage.Tokens(usage.of_input(body), out if has_output(path) else 0, estimated=True)


def has_output(path: str) -> bool:
    """Whether the answers of a route are tokens."""
    return path not in WITHOUT_OUTPUT and not path.startswith("/embeddings/")


def _too_many_failures(seconds: float) -> Answer:
    body = error_body(
        f"Too many credentials from your address or for this key were not valid. Try again in {ceil(seconds)} s.",
        kind="authentication_error",
        code="too_many_failures",
    )
    return Answer(429, body, headers=retry_after(seconds))
