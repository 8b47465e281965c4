"""What a request gets: who asks, which route, which model, which pod. Without a credential nothing is told.

The way of a request that is known in all of this is one call without a task; what has to be asked first (a token that
was not seen before) goes on in a coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from moorage_common.http.handler import Running
from moorage_common.http.message import Answer, Refusal, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_gateway import refusals
from moorage_gateway.access import Access, bearer
from moorage_gateway.alias import Aliases
from moorage_gateway.body import BodyError, with_model
from moorage_gateway.callers import Caller, ReviewError
from moorage_gateway.desk import BY_PATH, Desk, ModelRefusal
from moorage_gateway.exchange import Exchange, Order
from moorage_gateway.generate import CHAT, Collected, GenerateRequest, Generation, Shelf, pod_body, prompt_of
from moorage_gateway.hold import not_ready
from moorage_gateway.keys import PREFIX, KeysUncheckedError
from moorage_gateway.limits import Bill
from moorage_gateway.listing import alias_entry, listing, model_entry
from moorage_gateway.management import Management
from moorage_gateway.reply import Headers
from moorage_gateway.routing import Model, Table
from moorage_gateway.templates import Templates
from moorage_gateway.trace import REQUEST_ID, TRACE_PARENT, TRACE_STATE
from moorage_gateway.wanted import EMBEDDINGS, MODELS, ONE_MODEL, OURS, RELAYED, STREAMED, Wanted, wanted_of

_HEADS: Final = {
    path: b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %%d\r\nx-request-id: %%b\r\n"
    % path.encode()
    for path in RELAYED
}

Begun = Coroutine[Any, Any, None] | Running | None


class Front:
    """The handler of all requests."""

    def __init__(
        self,
        table: Table,
        access: Access,
        desk: Desk,
        *,
        aliases: Aliases | None = None,
        templates: Templates | None = None,
    ) -> None:
        """Route to the models of `table`, by `aliases` too, for those whom `access` knows.

        `desk` keeps limits and accounts.
        """
        self._table = table
        self._aliases = Aliases(table) if aliases is None else aliases
        self._templates = Templates() if templates is None else templates
        self._access = access
        self._desk = desk
        self.shelf = Shelf()
        desk.routes = RELAYED | OURS
        self.management: Management | None = None
        """What answers for the management API, where there is one."""

    def __call__(self, request: Request, responder: Responder) -> Begun:
        """Answer a request, or begin to."""
        if request.path == "/healthz":
            responder.send(Answer(200, b'{"status":"ok"}'))
            return None
        self._desk.begin(request, responder)
        if self.management is not None and self.management.serves(request.path):
            return self._manage(self.management, request, responder)
        caller, certain = self._access.known(request.headers.get(b"authorization"))
        if caller is None and not certain:
            return self._ask_first(request, responder)
        try:
            if caller is None:
                raise Refusal(refusals.unauthorized())
            wanted = wanted_of(request, self._table, self._aliases)
            for model in wanted.models:
                if caller.may_use(model.key) is None:
                    break
            else:
                if not wanted.aliases or self._aliases.decided(wanted.aliases, caller.may_use):
                    return self._go(caller, wanted, request, responder)
            return self._decide_first(caller, wanted, request, responder)
        except Refusal as refusal:
            if caller is None:
                self._desk.not_let_in(request, responder, refusal.answer)
            else:
                self._desk.refuse(refusal, caller, request, responder)
            return None

    def judge(self, headers: dict[bytes, bytes]) -> Answer | bool:
        """Refuse whoever shows no credential before a large body is taken; tell whether the caller is known.

        One that is wrong is refused when its request is whole: then it is counted and written down.
        """
        authorization = headers.get(b"authorization")
        if bearer(authorization) is None:
            return refusals.unauthorized()
        return self._access.known(authorization)[0] is not None

    async def go_on(self, caller: Caller, request: Request, responder: Responder) -> None:
        """Answer a request of somebody whose rights are known."""
        self._desk.begin(request, responder)
        try:
            await self._go_to_end(caller, wanted_of(request, self._table, self._aliases), request, responder)
        except Refusal as refusal:
            self._desk.refuse(refusal, caller, request, responder)

    async def _manage(self, management: Management, request: Request, responder: Responder) -> None:
        """Let the management API answer, and count the logins that fail there."""
        token = bearer(request.headers.get(b"authorization"))
        attempt = self._desk.attempt(request, responder)
        try:
            if token is not None and not token.startswith(PREFIX):
                attempt.check()
            by_model = await management(request, responder, refusals.unauthorized())
        except KeysUncheckedError:
            self._desk.turned_away(Refusal(refusals.keys_not_checked()), request, responder)
            return
        except Refusal as refusal:
            if refusal.answer.status == 401:
                self._desk.not_let_in(request, responder, refusal.answer)
            else:
                self._desk.turned_away(refusal, request, responder)
            return
        # What a model's pod answers says nothing of who has asked.
        if responder.status == 401 and not by_model:
            attempt.failed()

    async def _ask_first(self, request: Request, responder: Responder) -> None:
        try:
            attempt = self._desk.attempt(request, responder)
            caller = await self._access.ask(request.headers.get(b"authorization"), attempt)
        except KeysUncheckedError:
            self._desk.turned_away(Refusal(refusals.keys_not_checked()), request, responder)
            return
        except ReviewError as error:
            self._desk.turned_away(Refusal(refusals.not_checked(error)), request, responder)
            return
        except Refusal as refusal:
            self._desk.turned_away(refusal, request, responder)
            return
        if caller is None:
            self._desk.not_let_in(request, responder, refusals.unauthorized())
            return
        try:
            wanted = wanted_of(request, self._table, self._aliases)
        except Refusal as refusal:
            self._desk.refuse(refusal, caller, request, responder)
            return
        await self._decide_first(caller, wanted, request, responder)

    async def _decide_first(self, caller: Caller, wanted: Wanted, request: Request, responder: Responder) -> None:
        try:
            models = [*wanted.models, *self._aliases.models(wanted.aliases)]
            await self._access.decide(caller, [model.key for model in models])
            await self._go_to_end(caller, wanted, request, responder)
        except ReviewError as error:
            self._desk.refuse(Refusal(refusals.not_checked(error)), caller, request, responder)
        except Refusal as refusal:
            self._desk.refuse(refusal, caller, request, responder)

    async def _go_to_end(self, caller: Caller, wanted: Wanted, request: Request, responder: Responder) -> None:
        running = self._go(caller, wanted, request, responder)
        if running is not None:
            await _ended(running)

    def _go(self, caller: Caller, wanted: Wanted, request: Request, responder: Responder) -> Running | None:
        models = [model for model in wanted.models if caller.may_use(model.key)]
        if len(models) > 1 and wanted.path != MODELS:
            # Nobody can take over a full name by serving a model of theirs under it.
            models = [model for model in models if str(model.key) == wanted.asked] or models
        if models and wanted.aliases and wanted.path != MODELS:
            models = self._beside_aliases(caller, wanted, models)
        if wanted.path == MODELS:
            found = listing(models, self._aliases.visible(wanted.aliases, caller.may_use))
            self._desk.served(found, caller, request, responder)
            return None
        if wanted.path == ONE_MODEL:
            self._desk.served(json_answer(200, self._described(caller, wanted, models)), caller, request, responder)
            return None
        more: Headers = ()
        if len(models) == 1:
            (model,) = models
        elif models or not wanted.aliases:
            raise Refusal(refusals.ambiguous(wanted.asked, models) if models else refusals.no_model(wanted.asked))
        else:
            model = self._by_alias(caller, wanted)
            more = ((b"X-Moorage-Model", model.name.encode()),)
        if wanted.generate is not None:
            return self._generate(caller, wanted.generate, model, request, responder, more=more)
        body = request.body
        if wanted.path in EMBEDDINGS:
            body = body if request.path.startswith(BY_PATH) else _with_model(body, None)
        elif wanted.asked != model.served_name:
            body = _with_model(body, model.served_name)
        if model.full or not len(model.backends):
            _check_pods(model)
        path = wanted.path
        bill = self._desk.admit(caller, path, body, responder, wanted.wish) if caller.limited else None
        head, may_stream, priority = _head(path, request, body), path in STREAMED, caller.priority
        order = Order(
            model.name, caller.name, head, body, path, request, responder, bill, model.room, priority, may_stream, more
        )
        pods = model.backends if model.prefixes is None else model.prefixes.choosing(body)
        exchange = Exchange(responder, pods, order, self._desk.ended)
        exchange.start()
        return exchange

    def _generate(  # noqa: PLR0913 - what a request is made of
        self,
        caller: Caller,
        asked: GenerateRequest,
        model: Model,
        request: Request,
        responder: Responder,
        *,
        more: Headers,
    ) -> Generation:
        prompt, parameters = prompt_of(asked, self._templates, model.name), asked.parameters
        _check_pods(model)
        bill: Bill | None = None

        def ask(path: str, collected: Collected) -> Exchange:
            nonlocal bill
            body = pod_body(path, prompt, parameters, model.served_name)
            if bill is not None:
                bill.renew()
            elif caller.limited and path == CHAT:
                bill = self._desk.admit(caller, path, body, responder)
            order = Order(
                *(model.name, caller.name, _head(path, request, body), body, path, request, responder, bill),
                room=model.room,
                priority=caller.priority,
                more=more,
            )
            pods = model.backends if model.prefixes is None else model.prefixes.choosing(body)
            exchange = Exchange(collected, pods, order, self._desk.ended)
            exchange.start()
            return exchange

        generation = Generation(responder, model.name, ask, self.shelf)
        generation.start()
        return generation

    def _described(self, caller: Caller, wanted: Wanted, models: list[Model]) -> dict[str, object]:
        """The one model, or alias, of the name that is wanted; Refusal."""
        visible = [] if models else self._aliases.visible(wanted.aliases, caller.may_use)
        if len(models) + len(visible) > 1:
            raise Refusal(refusals.ambiguous(wanted.asked, [*models, *(alias for alias, _ in visible)]))
        if models:
            return model_entry(models[0])
        if visible:
            return alias_entry(*visible[0])
        raise Refusal(refusals.no_model(wanted.asked))

    def _beside_aliases(self, caller: Caller, wanted: Wanted, models: list[Model]) -> list[Model]:
        """The models that win over aliases of the name: those of the same namespace; of others none may. Refusal."""
        visible = [alias for alias, _ in self._aliases.visible(wanted.aliases, caller.may_use)]
        if any(str(alias.key) == wanted.asked for alias in visible):
            return [model for model in models if str(model.key) == wanted.asked]
        foreign = [alias for alias in visible if all(model.key.namespace != alias.key.namespace for model in models)]
        if foreign:
            raise Refusal(refusals.ambiguous(wanted.asked, [*models, *foreign]))
        return models

    def _by_alias(self, caller: Caller, wanted: Wanted) -> Model:
        visible = self._aliases.visible(wanted.aliases, caller.may_use)
        if len(visible) != 1:
            raise Refusal(
                refusals.ambiguous(wanted.asked, [alias for alias, _ in visible])
                if visible
                else refusals.no_model(wanted.asked)
            )
        return self._aliases.choose(visible[0][1])


async def _ended(running: Running) -> None:
    end = asyncio.get_running_loop().create_future()

    def tell(_: Running) -> None:
        if not end.done():
            end.set_result(None)

    running.add_done_callback(tell)
    try:
        await end
    except asyncio.CancelledError:
        running.cancel()
        raise


def _with_model(body: bytes, name: str | None) -> bytes:
    try:
        return with_model(body, name)
    except BodyError as error:
        raise Refusal(refusals.bad_body(error)) from error


def _head(path: str, request: Request, body: bytes) -> bytes:
    """Write the head that goes to the pod; of the client's only the trace goes on, as all else is ours to say."""
    headers = request.headers
    head = _HEADS[path] % (len(body), headers[REQUEST_ID])
    if TRACE_PARENT in headers:
        head += b"traceparent: %b\r\n" % headers[TRACE_PARENT]
        if TRACE_STATE in headers:
            head += b"tracestate: %b\r\n" % headers[TRACE_STATE]
    return head


def _check_pods(model: Model) -> None:
    """Refuse a request for a model that can neither take it nor let it wait."""
    if model.room is None and not len(model.backends):
        raise ModelRefusal(not_ready(model.name, model.why_not), model.name)
    if model.full:
        raise ModelRefusal(refusals.full(model), model.name)
