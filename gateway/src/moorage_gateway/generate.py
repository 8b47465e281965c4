"""`POST /v1/generate`: a text and a scenario in, a text out. It becomes a chat, and the chat's answer becomes its own.

Data flow: body → `read_request` → `prompt_of` (by the scenario's template) → `Generation`, which asks the pod as for
any chat (`exchange`), collects its answer, and writes `{generated_text, model, tokens}`. A model without a chat
template (its pod has no such route) gets the prompt as it is, to be completed.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from moorage_common.http.message import JSON, Answer, Refusal, json_answer
from moorage_common.http.responder import Flow, Responder
from moorage_common.openai_errors import error_body
from moorage_gateway.body import BodyError, fields_of
from moorage_gateway.exchange import Exchange
from moorage_gateway.reply import Headers
from moorage_gateway.templates import RenderError, Templates

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"

ANSWER_BYTES: Final = 4 * 1024 * 1024
"""The longest answer of a pod that is taken."""
ANSWERS_BYTES: Final = 32 * 1024 * 1024
"""Of all answers that are collected at a time: a pod may take its time to end one."""
SMALL_ANSWER: Final = 16 * 1024
"""So much of each is not counted, so that long answers of some leave the short ones of others alone."""

_FIELDS: Final = ("model_id", "inputs", "scenario", "parameters")


class _Parameter(NamedTuple):
    """A parameter of `/v1/generate`: OpenAI's name for it, and what it may be."""

    name: str
    kind: type[int] | type[float]
    least: int
    most: int


_PARAMETERS: Final[Mapping[str, _Parameter]] = {
    "max_new_tokens": _Parameter("max_tokens", int, 1, 2**31 - 1),
    "temperature": _Parameter("temperature", float, 0, 2),
    "top_p": _Parameter("top_p", float, 0, 1),
}


class GenerateRequest(NamedTuple):
    """What was asked for."""

    model_id: str
    inputs: msgspec.Raw
    """The text as JSON, as it came: kept as a text, one odd character would make it take four times as much."""
    scenario: str | None
    """None passes the inputs on as they are."""
    parameters: dict[str, int | float]
    """By OpenAI's names."""


def read_request(body: bytes, *, model: str | None = None) -> GenerateRequest:
    """Read a body; `model` is what the address names, and the body does not have to. Refusal."""
    fields = _object(body, "")
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise _refusal(unknown[0], f"is not a field: there are {', '.join(_FIELDS)}")
    scenario = _text(fields, "scenario") if "scenario" in fields else None
    parameters = _object(fields["parameters"], "parameters") if "parameters" in fields else {}
    return GenerateRequest(
        model_id=model if model is not None else _text(fields, "model_id"),
        inputs=_checked(fields, "inputs"),
        scenario=scenario,
        parameters=dict(_parameter(name, bytes(raw)) for name, raw in parameters.items()),
    )


def prompt_of(asked: GenerateRequest, templates: Templates, model: str) -> msgspec.Raw:
    """The text for the model, as JSON. Refusal where there is no such scenario, or its template fails."""
    if asked.scenario is None:
        return asked.inputs
    try:
        prompt = templates.render(asked.scenario, msgspec.json.decode(asked.inputs, type=str), model)
    except RenderError as error:
        body = error_body(
            f"The template of the scenario {asked.scenario!r} failed with these inputs: {error}.",
            kind="server_error",
            param="scenario",
            code="template_failed",
        )
        raise Refusal(Answer(500, body)) from error
    if prompt is None:
        there = ", ".join(templates.scenarios) or "none"
        raise _refusal("scenario", f"is {asked.scenario[:100]!r}: the scenarios are {there}")
    return msgspec.Raw(msgspec.json.encode(prompt))


def pod_body(path: str, prompt: msgspec.Raw, parameters: Mapping[str, int | float], served_name: str) -> bytes:
    """The body for a pod's chat, or its completions."""
    asks = {"messages": [{"role": "user", "content": prompt}]} if path == CHAT else {"prompt": prompt}
    return msgspec.json.encode({"model": served_name, **asks, **parameters})


class Shelf:
    """How much is kept of answers that are not whole yet."""

    taken: int = 0
    """Bytes."""


class Collected:
    """Takes an answer in place of a client."""

    started = False
    takes_chunks = False

    def __init__(self, shelf: Shelf) -> None:
        """Nothing has come yet; what comes is counted on `shelf`, until `release`."""
        self._shelf = shelf
        self._taken = 0
        self.answer: Answer | None = None
        """The answer, once it is whole."""
        self._begin(0, JSON, ())

    def send(self, answer: Answer) -> None:
        """Take an answer of our own."""
        self.answer = answer

    def start(self, status: int, content_type: bytes, *, flow: Flow, headers: Headers = ()) -> None:
        """Begin an answer of a pod."""
        self._begin(status, content_type, headers)

    def pass_head(  # noqa: PLR0913 - the parts of a head
        self,
        status: int,
        content_type: bytes,
        *,
        length: int | None,
        flow: Flow,
        headers: Headers = (),
        data: bytes = b"",
    ) -> Callable[[bytes], None]:
        """Begin one whose length is known."""
        self._begin(status, content_type, headers)
        self.write(data)
        return self.write

    def go_on(self, *, flow: Flow) -> None:
        """Nothing has been begun before a pod answers."""

    def write(self, data: bytes) -> None:
        """Keep a piece; of what is too long nothing at all."""
        if self._problem is not None:
            return
        more = max(0, len(self._body) + len(data) - SMALL_ANSWER - self._taken)
        if len(self._body) + len(data) > ANSWER_BYTES:
            self._give_up(_bad_gateway(f"The pod's answer has more than {ANSWER_BYTES} bytes."))
        elif self._shelf.taken + more > ANSWERS_BYTES:
            self._give_up(_overloaded())
        else:
            self._taken += more
            self._shelf.taken += more
            self._body += data

    def release(self) -> None:
        """Keep it no longer."""
        self._shelf.taken -= self._taken
        self._taken = 0
        self._body = bytearray()

    def passed(self, *, whole: bool) -> None:
        """The pod has ended its answer."""
        if whole:
            self.finish()
        else:
            self.break_off()

    def finish(self) -> None:
        """It is whole."""
        self.answer = self._problem or Answer(self._status, bytes(self._body), self._content_type, self._headers)

    def break_off(self) -> None:
        """It will never be."""
        self.answer = _bad_gateway("The model's pod went before its answer was complete.", "backend_gone")

    def _begin(self, status: int, content_type: bytes, headers: Headers) -> None:
        self._status = status
        self._content_type = content_type
        self._headers = headers
        self._problem: Answer | None = None
        self._body = bytearray()

    def _give_up(self, problem: Answer) -> None:
        self._problem = problem
        self.release()


class Generation:
    """One request on its way (`server.Running`): an exchange, and a second one where the model has no chat."""

    def __init__(
        self, responder: Responder, model: str, ask: Callable[[str, Collected], Exchange], shelf: Shelf
    ) -> None:
        """`ask` sends the prompt to a path of the pod. `model` is what the answer says."""
        self._shelf = shelf
        self._responder = responder
        self._model = model
        self._ask = ask
        self._exchange: Exchange | None = None
        self._over = False
        self._done: Callable[[Generation], object] | None = None

    def start(self) -> None:
        """Send the request."""
        self._send(CHAT)

    def add_done_callback(self, callback: "Callable[[Generation], object]") -> None:
        """Call `callback` at the end."""
        self._done = callback
        if self._over:
            callback(self)

    def cancelled(self) -> bool:
        """Tell whether the client has left."""
        return self._exchange is not None and self._exchange.cancelled()

    def cancel(self) -> None:
        """Drop the answer."""
        if self._exchange is not None:
            self._exchange.cancel()

    def _send(self, path: str) -> None:
        collected = Collected(self._shelf)
        self._exchange = self._ask(path, collected)
        self._exchange.add_done_callback(lambda exchange: self._ended(exchange, path, collected))

    def _ended(self, exchange: Exchange, path: str, collected: Collected) -> None:
        answer = collected.answer
        collected.release()
        if not exchange.cancelled() and answer is not None:
            if answer.status == 404 and path == CHAT:
                self._send(COMPLETIONS)
                return
            self._responder.send(self._rewritten(answer) if answer.status == 200 else answer)
        self._over = True
        if self._done is not None:
            self._done(self)

    def _rewritten(self, answer: Answer) -> Answer:
        try:
            said = _SAID.decode(answer.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return _bad_gateway(f"The pod's answer cannot be read: {error}.")
        (choice,) = said.choices
        text = choice.text if choice.message is None else choice.message.content
        tokens = said.usage.completion_tokens if said.usage is not None else None
        told = json_answer(200, {"generated_text": text or "", "model": self._model, "tokens": tokens})
        return Answer(200, told.body, headers=answer.headers)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str = ""


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Said(msgspec.Struct):
    choices: tuple[_Choice]
    """One, as was asked for; of a list, a pod could make a million."""
    usage: _Usage | None = None


_SAID: Final = msgspec.json.Decoder(_Said)


def _object(raw: bytes | msgspec.Raw, field: str) -> dict[str, msgspec.Raw]:
    try:
        return fields_of(raw)
    except BodyError as error:
        raise _refusal(field, f"is not a JSON object: {error}") from error


def _text(fields: Mapping[str, msgspec.Raw], name: str) -> str:
    if name not in fields:
        raise _refusal(name, "is missing: it has to be a text")
    try:
        text = msgspec.json.decode(fields[name], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(name, f"is {_shown(bytes(fields[name]))}: it has to be a text") from error
    if not text:
        raise _refusal(name, "is empty: it has to be a text")
    return text


def _checked(fields: Mapping[str, msgspec.Raw], name: str) -> msgspec.Raw:
    _text(fields, name)
    return fields[name]


def _parameter(name: str, raw: bytes) -> tuple[str, int | float]:
    field = f"parameters.{name[:100]}"
    known = _PARAMETERS.get(name)
    if known is None:
        raise _refusal(field, f"is not a parameter: there are {', '.join(_PARAMETERS)}")
    meant = f"it has to be a {'whole ' if known.kind is int else ''}number from {known.least} to {known.most}"
    try:
        number: int | float = msgspec.json.decode(raw, type=known.kind)
    except msgspec.DecodeError as error:
        raise _refusal(field, f"is {_shown(raw)}: {meant}") from error
    if not known.least <= number <= known.most:
        raise _refusal(field, f"is {_shown(raw)}: {meant}")
    return known.name, number


def _shown(raw: bytes) -> str:
    return raw[:40].decode(errors="replace") + ("…" if len(raw) > 40 else "")


def _refusal(field: str, problem: str) -> Refusal:
    named: Any = field[:100] or None
    return Refusal(Answer(400, error_body(f"{f'`{named}`' if named else 'The body'} {problem}.", param=named)))


def _bad_gateway(message: str, code: str | None = "backend_answer") -> Answer:
    return Answer(502, error_body(message, kind="server_error", code=code))


def _overloaded() -> Answer:
    body = error_body(
        "Too many long answers are here at once. Try again soon.", kind="service_unavailable", code="overloaded"
    )
    return Answer(503, body, headers=((b"Retry-After", b"1"),))
