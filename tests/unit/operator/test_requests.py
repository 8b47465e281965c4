"""The session that kopf gets: what it tells of lists, and what happens where the API server refuses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from kubernetes.aio.client import ApiClient
from kubernetes.aio.dynamic import Resource

from moorage_operator.cluster.cache.scope import Watched
from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.connection import connect
from moorage_operator.cluster.kinds import NODES, PODS
from moorage_operator.handlers import requests
from moorage_operator.handlers.requests import ListsAndWatches, session
from tests.unit.operator.api_server import ApiServer, api_server, kubeconfig, status

PODS_PATH = "/api/v1/namespaces/team-a/pods"
IN_TEAM_A = (PODS, "team-a")


class Seen:
    """What the operator would be told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def event(self, _resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An object."""
        if obj["metadata"]["name"] == "broken":
            raise KeyError("a bug")
        self.told.append((kind, obj["metadata"]["name"]))

    def listed(self, resource: Resource, namespace: str | None, found: Mapping[str, str], version: int) -> None:
        """The end of a list."""
        self.told.append(("listed", resource.kind, namespace, dict(found), version))

    def lost(self, watched: Watched) -> None:
        """A refusal."""
        self.told.append(("lost", watched[0].kind, watched[1]))

    def recovered(self, watched: Watched) -> None:
        """Its end, at a watch."""
        self.told.append(("recovered", watched[0].kind, watched[1]))


class Bed:
    """A server, the session, and what it tells."""

    def __init__(self, server: ApiServer, seen: Seen, watches: Watches, log_in: Callable[[], Any]) -> None:
        self.server, self.seen, self.watches, self._log_in = server, seen, watches, log_in
        self.session = log_in()

    async def log_in_again(self) -> None:
        """As kopf does when its session does not work any more."""
        await self.session.close()
        self.session = self._log_in()

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        """A request of kopf's; its status and JSON."""
        async with self.session.get(self.server.url + path, params=query) as response:
            return response.status, await response.json()


@pytest.fixture
async def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    """All of it; nothing waits long."""
    monkeypatch.setattr(requests, "LOGIN_SECONDS", 0.05)
    async with api_server() as server, made(server, tmp_path, monkeypatch) as bed:
        yield bed


@asynccontextmanager
async def made(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.url, token="one")))
    api, seen, watched = await connect(), Seen(), [IN_TEAM_A, (NODES, None)]
    watches = Watches(watched)
    lists = ListsAndWatches(watched, watches, seen)
    bed = Bed(server, seen, watches, lambda: session(api, lists).aiohttp_session)
    try:
        yield bed
    finally:
        await bed.session.close()
        await api.close()


def page(*names: str, more: str = "") -> dict[str, Any]:
    """A page of a list of pods."""
    items = [{"metadata": {"name": name, "namespace": "team-a", "uid": f"uid-{name}"}} for name in names]
    return {"metadata": {"resourceVersion": "9", "continue": more}, "items": items}


async def test_a_list_is_taken_in_as_it_passes_and_kopf_gets_it_too(bed: Bed) -> None:
    bed.server.answer(page("one", more="go-on"), page("two"))
    assert await bed.get(PODS_PATH, limit="100") == (200, page("one", more="go-on"))
    assert bed.seen.told == [(None, "one")]
    assert await bed.get(PODS_PATH, limit="100", **{"continue": "go-on"}) == (200, page("two"))
    found = {"uid-one": "team-a/one", "uid-two": "team-a/two"}
    assert bed.seen.told[1:] == [(None, "two"), ("listed", "Pod", "team-a", found, 9)]
    assert bed.watches.missing() == ["/api/v1/nodes"]


async def test_a_list_that_begins_anew_forgets_the_pages_before(bed: Bed) -> None:
    bed.server.answer(page("one", more="go-on"), page("two"))
    await bed.get(PODS_PATH)
    await bed.get(PODS_PATH)
    assert bed.seen.told[-1] == ("listed", "Pod", "team-a", {"uid-two": "team-a/two"}, 9)


async def test_a_list_goes_on_after_another_login(bed: Bed) -> None:
    bed.server.answer(page("one", more="go-on"), page("two"))
    await bed.get(PODS_PATH)
    await bed.log_in_again()
    await bed.get(PODS_PATH, **{"continue": "go-on"})
    assert bed.seen.told[-1] == ("listed", "Pod", "team-a", {"uid-one": "team-a/one", "uid-two": "team-a/two"}, 9)


async def test_an_object_that_cannot_be_read_stops_no_list(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.server.answer(page("broken", "one"))
    assert (await bed.get(PODS_PATH))[0] == 200
    found = {"uid-broken": "team-a/broken", "uid-one": "team-a/one"}
    assert bed.seen.told == [(None, "one"), ("listed", "Pod", "team-a", found, 9)]
    assert "KeyError: 'a bug'" in caplog.text


async def test_what_is_not_watched_passes_unread(bed: Bed) -> None:
    bed.server.answer(page("one"))
    await bed.get("/api/v1/namespaces/team-b/pods")
    assert bed.seen.told == []


@pytest.mark.parametrize(("code", "reason"), [(403, "Forbidden"), (404, "NotFound")])
async def test_cluster_01_what_is_refused_waits_and_is_told_once(bed: Bed, code: int, reason: str) -> None:
    bed.server.answer(*[status(code, reason, "by order")] * 2, page("one"))
    assert (await bed.get(PODS_PATH))[0] == 200
    assert bed.seen.told[0] == ("lost", "Pod", "team-a")
    assert [told[0] for told in bed.seen.told] == ["lost", None, "listed"]
    assert len(bed.server.requests) == 3
    assert bed.watches.unwatched() == []


async def test_cluster_01_a_watch_that_goes_on_asks_for_a_list(bed: Bed) -> None:
    bed.server.answer(status(403, "Forbidden", "by order"), {})
    await bed.get(PODS_PATH, watch="true", resourceVersion="9")
    assert bed.seen.told == [("lost", "Pod", "team-a"), ("recovered", "Pod", "team-a")]


@pytest.mark.parametrize("code", [410, 429, 500, 503])
async def test_other_refusals_are_kopfs_to_repeat(bed: Bed, code: int) -> None:
    bed.server.answer(status(code, "Reason", "by order"))
    assert (await bed.get(PODS_PATH))[0] == code
    assert bed.seen.told == []


async def test_fault_09_kopf_is_not_asked_to_wait_for_longer_than_we_would(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MOST_RETRY_AFTER", 0.1)
    bed.server.answer(status(429, "TooManyRequests", "later", Retry_After="999999"), page("one"))
    assert (await bed.get(PODS_PATH))[0] == 200


@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"", b"[]", b"{}", b'{"metadata": null}'])
async def test_an_answer_that_is_no_list_is_asked_for_again(body: bytes, bed: Bed) -> None:
    bed.server.answer(web.Response(body=body), page("one"))
    assert (await bed.get(PODS_PATH))[0] == 200
    assert len(bed.server.requests) == 2
    assert bed.seen.told == [(None, "one"), ("listed", "Pod", "team-a", {"uid-one": "team-a/one"}, 9)]


async def test_a_list_that_expires_between_two_pages_begins_again(bed: Bed) -> None:
    bed.server.answer(page("one", more="go-on"), status(410, "Expired", "too old"))
    await bed.get(PODS_PATH)
    with pytest.raises(ClientPayloadError):
        await bed.get(PODS_PATH, **{"continue": "go-on"})


async def test_kopf_hears_of_the_api_when_the_crd_is_there(bed: Bed) -> None:
    bed.server.answer({"groups": [{"name": "apps"}]}, {"groups": [{"name": "apps"}, {"name": "moorage.dev"}]})
    assert len((await bed.get("/apis"))[1]["groups"]) == 2
    aliases, models = {"name": "modelaliases"}, {"name": "inferencemodels"}
    bed.server.answer(status(404, "NotFound", ""), {"resources": [aliases]}, {"resources": [aliases, models]})
    assert len((await bed.get("/apis/moorage.dev/v1alpha1"))[1]["resources"]) == 2


async def test_cluster_01_an_operator_that_waits_for_the_crd_is_alive(bed: Bed) -> None:
    bed.watches._started -= 1000
    bed.server.answer(status(404, "NotFound", ""), {"resources": [{"name": "inferencemodels"}]})
    await bed.get("/apis/moorage.dev/v1alpha1")
    assert bed.watches.silent_seconds() < 10
    assert bed.watches.missing()


async def test_fault_11_while_credentials_are_refused_one_request_asks_at_a_time(bed: Bed) -> None:
    refused = [status(401, "Unauthorized", "who are you?")]
    bed.server.answer(*refused * 12, page("one"))
    answers = await asyncio.gather(*(bed.get(PODS_PATH) for _ in range(5)))
    assert [code for code, _ in answers] == [200] * 5
    # The first five are on their way together, then one after the other, and when one succeeds all do.
    assert len(bed.server.requests) <= 12 + 5


async def test_cluster_01_a_namespace_that_is_lost_holds_up_no_other_after_credentials_were_refused(bed: Bed) -> None:
    refused = [status(401, "Unauthorized", "who are you?")]

    def answer(request: web.Request) -> web.Response:
        if refused:
            return refused.pop()
        return status(403, "Forbidden", "by order") if request.path == PODS_PATH else web.json_response(page("one"))

    bed.server.answers = [answer]
    lost = asyncio.create_task(bed.get(PODS_PATH))
    await asyncio.sleep(0.2)
    assert bed.watches.unwatched()
    async with asyncio.timeout(2):
        assert (await bed.get("/api/v1/nodes"))[0] == 200
    assert not lost.done()
    lost.cancel()


async def test_what_is_refused_for_long_is_asked_for_with_credentials_that_are_fresh(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(["one", "two"])

    async def authorization(_api: ApiClient) -> dict[str, str]:
        return {"Authorization": next(tokens)}

    monkeypatch.setattr(requests, "authorization", authorization)
    bed.server.answer(status(403, "Forbidden", "by order"), page("one"))
    assert (await bed.get(PODS_PATH))[0] == 200
    assert [request.headers["Authorization"] for request in bed.server.requests] == ["one", "two"]
