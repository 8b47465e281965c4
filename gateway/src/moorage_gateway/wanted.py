"""What a request means: which route, which models, by their names in its body or its path; nobody is asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

import msgspec

from moorage_common.http.message import Refusal, Request
from moorage_gateway import refusals
from moorage_gateway.alias import Alias, Aliases
from moorage_gateway.body import BodyError, asked_model
from moorage_gateway.desk import BY_PATH
from moorage_gateway.generate import GenerateRequest, read_request
from moorage_gateway.routing import Model, ModelKey, Table
from moorage_gateway.usage import Wish

OPENAI: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"})
EMBEDDINGS: Final = frozenset({"/embeddings/text", "/embeddings/image", "/embeddings/fused", "/similarity"})
"""Routes of the embedding service, whose bodies name no model; here they may, and the pod does not see it."""

STREAMED: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Routes that answer with a stream of events where that is asked for."""

RELAYED: Final = OPENAI | EMBEDDINGS
"""The routes of pods that are passed on; all others are not there, whatever an engine has."""

MODELS: Final = "/v1/models"
ONE_MODEL: Final = "/v1/models/"
"""Before the name of one of them, escaped as a part of an address."""
GENERATE: Final = "/v1/generate"
"""This becomes a route of the pod (`generate`)."""

OURS: Final = frozenset({MODELS, GENERATE})


class Wanted(msgspec.Struct, frozen=True):
    """What a request means."""

    path: str
    asked: str
    models: list[Model]
    aliases: Sequence[Alias] = ()
    generate: GenerateRequest | None = None
    wish: Wish | None = None
    """What the body says of its answer, where it was read."""


def wanted_of(request: Request, table: Table, aliases: Aliases) -> Wanted:
    """Find out which route and which models a request means; whether the caller may is not asked yet. Refusal."""
    path, named = request.path, None
    if path.startswith(BY_PATH):
        namespace, _, rest = path[len(BY_PATH) :].partition("/")
        name, slash, rest = rest.partition("/")
        path, named = slash + rest, ModelKey(namespace, name)
    elif path.startswith(ONE_MODEL) and len(path) > len(ONE_MODEL):
        if request.method != "GET":
            raise Refusal(refusals.wrong_method(request, "GET"))
        asked = unquote(path[len(ONE_MODEL) :])
        return Wanted(ONE_MODEL, asked, table.named(asked), aliases.by_name.get(asked, ()))
    method = "GET" if path == MODELS else "POST"
    if path not in RELAYED and path not in OURS:
        raise Refusal(refusals.not_found(request))
    if request.method != method:
        raise Refusal(refusals.wrong_method(request, method))
    asked, generate, wish = "" if named is None else str(named), None, None
    if path == GENERATE:
        generate = read_request(request.body, model=asked or None)
        asked = generate.model_id
    elif not asked and path == MODELS:
        return Wanted(path, asked, list(table), list(aliases))
    elif not asked:
        asked, wish = _read(request.body)
    models = table.named(asked) if named is None else [model] if (model := table.get(named)) is not None else []
    return Wanted(path, asked, models, aliases.by_name.get(asked, ()) if aliases.by_name else (), generate, wish)


def _read(body: bytes) -> tuple[str, Wish]:
    try:
        return asked_model(body)
    except BodyError as error:
        raise Refusal(refusals.bad_body(error)) from error
