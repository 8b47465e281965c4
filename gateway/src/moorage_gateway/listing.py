"""`GET /v1/models`, and one of them: what a caller may use, models and aliases, in OpenAI's words and a few of ours."""

from collections.abc import Iterable, Sequence

from moorage_common.http.message import Answer, json_answer
from moorage_gateway.alias import Alias, Weighted
from moorage_gateway.routing import Model


def listing(models: Iterable[Model], aliases: Iterable[tuple[Alias, Sequence[Weighted]]]) -> Answer:
    """The list, by full names; a model hides an alias of its own full name, as it does in requests."""
    entries = {model.key: model_entry(model) for model in models}
    for alias, among in aliases:
        entries.setdefault(alias.key, alias_entry(alias, among))
    return json_answer(200, {"object": "list", "data": [entries[key] for key in sorted(entries)]})


def model_entry(model: Model) -> dict[str, object]:
    """One model; it is `sleeping` where it has no pods until somebody asks it something."""
    return {
        "id": str(model.key),
        "object": "model",
        "created": model.created,
        "owned_by": model.key.namespace,
        "served_name": model.served_name,
        "ready": len(model.backends) > 0,
        **({"sleeping": True} if model.sleeping and not len(model.backends) else {}),
    }


def alias_entry(alias: Alias, among: Sequence[Weighted]) -> dict[str, object]:
    """One alias, with the models that it leads the caller to."""
    return {
        "id": str(alias.key),
        "object": "model",
        "created": alias.created,
        "owned_by": alias.key.namespace,
        "served_name": alias.key.name,
        "ready": any(len(entry.model.backends) for entry in among),
        "models": [str(entry.model.key) for entry in among],
    }
