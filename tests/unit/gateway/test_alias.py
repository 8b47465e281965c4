"""One name for several models: shares by weight, never more than a caller may, and who wins of two with one name."""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moorage_gateway.access import User
from moorage_gateway.alias import Alias, Aliases, Share, Weighted
from moorage_gateway.hold import HoldLimits, State
from moorage_gateway.keys import ApiKey
from moorage_gateway.routing import ModelKey, Table
from tests.unit.common.support import Reply, get, post, until
from tests.unit.gateway.support import CHAT, DIGEST, KEY, MODEL, Bed, Pod, answers, running

CANARY = ModelKey("team-a", "canary")
PROD = ModelKey("team-a", "prod")
ALL = "mrg_all_s3cret"


@asynccontextmanager
async def canary(*, stable: int = 90, canary: int = 10) -> AsyncIterator[tuple[Bed, Pod, Pod]]:
    """`team-a/prod` is `team-a/chat` and `team-a/canary`, each with a pod; the key `all` may use both."""
    async with running(answers(), answers()) as (bed, [first, second]):
        bed.table.put(CANARY, "canary-served")
        bed.table.backends(MODEL).update([("127.0.0.1", first.port)])
        bed.table.backends(CANARY).update([("127.0.0.1", second.port)])
        bed.aliases.put(Alias(PROD, (Share(MODEL, stable), Share(CANARY, canary)), created=7))
        bed.keys.put("all", ApiKey(id="all", digest=DIGEST, everything=True))
        yield bed, first, second
        for endpoint in bed.table.backends(CANARY):
            endpoint.pool.close()


async def ask(bed: Bed, model: str = "prod", *, key: str = ALL, path: str = CHAT) -> Reply:
    body = json.dumps({"model": model, "messages": [], "seed": 7}).encode()
    return await bed.gateway.ask(post(body, f"Authorization: Bearer {key}", path=path))


async def listed(bed: Bed, key: str) -> dict[str, object]:
    reply = await bed.gateway.ask(get("/v1/models", f"Authorization: Bearer {key}"))
    return {entry["id"]: entry.get("models") for entry in json.loads(reply.body)["data"]}


# -- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(90, 10), (1, 1), (1000, 1), (5, 3, 2)])
async def test_requests_are_shared_by_weight(weights: tuple[int, ...]) -> None:
    table = Table()
    keys = [ModelKey("team-a", f"m{number}") for number in range(len(weights))]
    for key in keys:
        table.put(key, key.name)
        table.backends(key).update([("10.0.0.1", 8000)])
    aliases = Aliases(table, random.Random(3).random)  # noqa: S311 - not for secrets
    among = [Weighted(model, weight) for model, weight in zip(table, weights, strict=True)]
    met = Counter(aliases.choose(among).key for _ in range(20_000))
    for key, weight in zip(keys, weights, strict=True):
        expected = 20_000 * weight / sum(weights)
        assert abs(met[key] - expected) < 5 * expected**0.5 + 1


async def test_a_request_for_an_alias_reaches_one_of_its_models_under_that_models_name_and_the_answer_says_which() -> (
    None
):
    async with canary(stable=50, canary=50) as (bed, first, second):
        told = Counter[str]()
        for number in range(40):
            name, path = [("prod", CHAT), ("team-a/prod", CHAT), ("x", f"/models/{PROD}{CHAT}")][number % 3]
            reply = await ask(bed, name, path=path)
            assert reply.status == 200
            told[reply.headers["x-moorage-model"]] += 1
        assert told == {"team-a/chat": len(first.requests), "team-a/canary": len(second.requests)}
        assert len(told) == 2
        for pod, served in ((first, "chat"), (second, "canary-served")):
            sent = [json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in pod.requests]
            assert {(body["model"], body["seed"]) for body in sent} == {(served, 7)}
        assert {exchange.model for exchange in bed.ended} == {str(MODEL), str(CANARY)}


async def test_the_name_of_a_model_itself_costs_no_header() -> None:
    async with canary() as (bed, _, _second):
        assert "x-moorage-model" not in (await ask(bed, "chat")).headers


async def test_a_weight_of_0_gets_nothing_even_while_the_others_do_not_run() -> None:
    async with canary(stable=1, canary=0) as (bed, _first, second):
        for _ in range(20):
            assert (await ask(bed)).status == 200
        bed.table.backends(MODEL).update([])
        assert (await ask(bed)).status == 503
        assert not second.requests


async def test_a_model_without_a_ready_pod_leaves_its_share_to_the_others() -> None:
    async with canary(stable=999, canary=1) as (bed, first, second):
        bed.table.backends(MODEL).update([])
        for _ in range(10):
            assert (await ask(bed)).status == 200
        assert (len(first.requests), len(second.requests)) == (0, 10)

        bed.table.backends(CANARY).update([])
        bed.table.put(MODEL, "chat", state=State(why_not="Stopped: suspended"))
        reply = await ask(bed)
        assert (reply.status, reply.error["code"]) == (503, "model_not_ready")
        assert "Stopped: suspended" in reply.error["message"]


async def test_where_none_has_a_ready_pod_a_request_waits_for_one_that_wakes() -> None:
    async with running(answers(), hold=HoldLimits()) as (bed, [pod]):
        bed.keys.put("all", ApiKey(id="all", digest=DIGEST, everything=True))
        bed.table.put(MODEL, "chat", state=State(why_not="Stopped: suspended"))
        bed.table.put(CANARY, "canary", state=State(waits=True, takes=1))
        bed.aliases.put(Alias(PROD, (Share(MODEL, 999), Share(CANARY, 1))))
        content = b'{"model":"prod","messages":[]}'
        client = await bed.start(post(content, f"Authorization: Bearer {ALL}", path=CHAT))
        room = bed.table.named("canary")[0].room
        assert room is not None
        await until(lambda: len(room) == 1)
        bed.table.move(CANARY, [("127.0.0.1", pod.port)])
        assert (await client.reply()).headers["x-moorage-model"] == "team-a/canary"
        bed.table.move(CANARY, [])


async def test_a_model_that_does_not_exist_gets_nothing() -> None:
    async with canary(stable=1, canary=999) as (bed, first, _second):
        bed.table.remove(CANARY)
        for _ in range(10):
            assert (await ask(bed)).status == 200
        assert len(first.requests) == 10
        bed.table.remove(MODEL)
        assert (await ask(bed)).status == 404


# -- rights -----------------------------------------------------------------------------------------------------------


async def test_an_alias_leads_to_no_model_that_the_caller_may_not_use() -> None:
    async with canary(stable=1, canary=999) as (bed, first, second):
        for _ in range(20):
            assert (await ask(bed, key=KEY)).status == 200  # the key is for team-a/chat alone
        assert (len(first.requests), len(second.requests)) == (20, 0)
        assert await listed(bed, KEY) == {"team-a/chat": None, "team-a/prod": ["team-a/chat"]}


async def test_bad_input_42_an_alias_of_models_of_others_looks_like_one_that_is_not_there() -> None:
    async with canary() as (bed, _, _second):
        bed.aliases.put(Alias(ModelKey("team-a", "hidden"), (Share(CANARY, 1),)))
        for path in (CHAT, "/models/team-a/hidden/v1/completions"):
            theirs = await ask(bed, "hidden", key=KEY, path=path)
            nobodys = await ask(bed, "absent", key=KEY, path=path.replace("hidden", "absent"))
            assert theirs.status == nobodys.status == 404
            assert theirs.error["message"].replace("hidden", "absent") == nobodys.error["message"]
        assert list(await listed(bed, KEY)) == ["team-a/chat", "team-a/prod"]
        # Named in a key, an alias gives nothing: a key is for models.
        bed.keys.put("one", ApiKey(id="one", digest=DIGEST, models=frozenset({ModelKey("team-a", "hidden")})))
        assert (await ask(bed, "hidden", key="mrg_one_s3cret")).status == 404


async def test_what_a_token_may_is_asked_for_each_model_of_an_alias() -> None:
    async with canary(stable=1, canary=999) as (bed, first, second):
        bed.reviews.users["token"] = User("app")
        bed.reviews.allowed.add(("app", MODEL))
        for _ in range(10):
            assert (await ask(bed, key="token")).status == 200
        assert (len(first.requests), len(second.requests)) == (10, 0)
        assert bed.reviews.asked.count(f"app {MODEL}") == 1
        assert f"app {CANARY}" in bed.reviews.asked
        assert await listed(bed, "token") == {"team-a/chat": None, "team-a/prod": ["team-a/chat"]}


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", ["prod", "something-else"])
async def test_a_model_wins_over_an_alias_of_its_name_for_whoever_may_use_it(served: str) -> None:
    async with canary() as (bed, first, second):
        model = ModelKey("team-a", "prod" if served != "prod" else "another")
        bed.table.put(model, served)
        bed.table.backends(model).update([("127.0.0.1", second.port)])
        for _ in range(10):
            assert "x-moorage-model" not in (await ask(bed, "prod")).headers
        assert (len(first.requests), len(second.requests)) == (0, 10)
        entry = (await listed(bed, ALL)).get("team-a/prod", "none")
        assert entry == (["team-a/chat", "team-a/canary"] if served == "prod" else None)
        # Somebody who may not use that model does not learn that there is one.
        assert (await ask(bed, "prod", key=KEY)).headers["x-moorage-model"] == "team-a/chat"
        for endpoint in bed.table.backends(model):
            endpoint.pool.close()


async def test_two_aliases_of_one_name_are_told_apart_by_their_namespaces() -> None:
    async with canary() as (bed, _, _second):
        bed.table.put(ModelKey("team-b", "chat"), "b")
        bed.aliases.put(Alias(ModelKey("team-b", "prod"), (Share(ModelKey("team-b", "chat"), 1),)))
        reply = await ask(bed)
        assert reply.status == 400
        assert "team-a/prod, team-b/prod" in reply.error["message"]
        assert (await ask(bed, "team-a/prod")).status == 200
        assert (await ask(bed, key=KEY)).status == 200  # it sees one of them only


async def test_an_alias_is_listed_with_the_models_it_leads_to() -> None:
    async with canary() as (bed, _, _second):
        reply = await bed.gateway.ask(get(f"/models/{PROD}/v1/models", f"Authorization: Bearer {ALL}"))
        (entry,) = json.loads(reply.body)["data"]
        assert entry == {
            **{"id": "team-a/prod", "object": "model", "created": 7, "owned_by": "team-a", "served_name": "prod"},
            **{"ready": True, "models": ["team-a/chat", "team-a/canary"]},
        }


@pytest.mark.parametrize(("asked", "status"), [("prod", 400), ("team-a/prod", 200)])
async def test_bad_input_42_no_model_of_others_takes_over_the_name_of_an_alias(asked: str, status: int) -> None:
    async with canary() as (bed, *_), running(answers()) as (_, [thief]):
        model = ModelKey("team-b", "thief")
        bed.table.put(model, asked)
        bed.table.backends(model).update([("127.0.0.1", thief.port)])
        for _ in range(5):
            reply = await ask(bed, asked)
            assert reply.status == status
        assert not thief.requests
        if status == 400:
            assert "team-a/prod, team-b/thief" in reply.error["message"]
        else:
            assert reply.headers["x-moorage-model"].startswith("team-a/")
        # Whoever may not use that model does not learn that there is one.
        assert (await ask(bed, asked, key=KEY)).status == 200
