"""The operator's requests to the API server: what they send, and which of our classes an answer becomes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from moorage_operator.cluster.client import MOST_RETRY_AFTER, Kube
from moorage_operator.cluster.connection import connect
from moorage_operator.cluster.errors import (
    ApiError,
    BrokenError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    InvalidNameError,
    NotFoundError,
    ThrottledError,
    UnauthorizedError,
    UnavailableError,
)
from moorage_operator.cluster.kinds import DEPLOYMENTS, INFERENCE_MODELS, NODES, PODS
from moorage_operator.health import SILENT_LIMIT
from tests.unit.operator.api_server import ApiServer, api_server, kubeconfig, status

TOKEN = "a-token-that-nobody-may-see"


@asynccontextmanager
async def talking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ApiServer, Kube]]:
    """A client and the server that it talks to."""
    async with api_server() as server:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.url, token=TOKEN)))
        api = await connect()
        try:
            yield server, Kube(api)
        finally:
            await api.close()


async def test_a_request_says_who_we_are_and_what_we_want(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer({"metadata": {"name": "tiny"}})
        manifest = {
            "kind": "InferenceModel",
            "metadata": {"name": "tiny", "namespace": "team-a"},
            "status": {"phase": "x"},
        }
        assert await kube.get(DEPLOYMENTS, "team-a", "tiny") == {"metadata": {"name": "tiny"}}
        await kube.apply(INFERENCE_MODELS, manifest, force=True, subresource="status")
        get, apply = server.requests
        assert (get.method, get.path) == ("GET", "/apis/apps/v1/namespaces/team-a/deployments/tiny")
        assert get.headers["Authorization"] == f"Bearer {TOKEN}"
        assert get.headers["User-Agent"] == "moorage-operator"
        assert apply.path == "/apis/moorage.dev/v1alpha1/namespaces/team-a/inferencemodels/tiny/status"
        assert dict(apply.query) == {"fieldManager": "moorage-operator", "force": "true"}
        assert apply.headers["Content-Type"] == "application/apply-patch+yaml"
        assert server.bodies[1] == manifest


async def test_an_object_is_deleted_only_as_the_one_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer({})
        await kube.delete(PODS, "team-a", "tiny-1", uid="the-uid")
        assert server.requests[0].method == "DELETE"
        assert server.bodies[0]["preconditions"] == {"uid": "the-uid"}


async def test_a_list_is_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        first = {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [{"a": 1}]}
        server.answer(first, {"metadata": {"resourceVersion": "5"}, "items": [{"b": 2}]})
        found = [item async for page in kube.pages(NODES, None, {"labelSelector": "x=y"}) for item in page["items"]]
        assert found == [{"a": 1}, {"b": 2}]
        assert [dict(request.query) for request in server.requests] == [
            {"limit": "100", "labelSelector": "x=y"},
            {"limit": "100", "labelSelector": "x=y", "continue": "more"},
        ]


async def test_a_watch_gives_its_events_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer(web.Response(body=b'{"type":"ADDED","object":{"n":1}}\n{"type":"DELETED","object":{"n":1}}\n'))
        events = [event["type"] async for event in kube.watch(PODS, "team-a", {"resourceVersion": "7"}, silence=5)]
        assert events == ["ADDED", "DELETED"]
        assert dict(server.requests[0].query) == {"watch": "true", "resourceVersion": "7"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidError),
        (418, ApiError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_each_refusal_has_its_class_and_the_servers_words(
    code: int, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer(status(code, "SomeReason", "the server's words", X_Secret="a-header-that-nobody-may-see"))
        with pytest.raises(expected) as refused:
            await kube.get(PODS, "team-a", "tiny-1")
        assert type(refused.value) is expected
        assert f"{code} SomeReason: the server's words" in str(refused.value)
        assert "nobody-may-see" not in str(refused.value) + repr(refused.value.__cause__)


@pytest.mark.parametrize(("asked", "obeyed"), [("7", 7.0), ("999999", MOST_RETRY_AFTER), ("soon", 1.0), ("", 1.0)])
async def test_fault_09_a_server_that_asks_to_wait_is_understood(
    asked: str, obeyed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer(status(429, "TooManyRequests", "later", Retry_After=asked))
        with pytest.raises(ThrottledError) as refused:
            await kube.get(PODS, "team-a", "tiny-1")
        assert refused.value.retry_after == obeyed
        server.answer(status(503, "Unavailable", "shutting down", Retry_After="5"))
        with pytest.raises(UnavailableError) as away:
            await kube.get(PODS, "team-a", "tiny-1")
        assert away.value.retry_after == 5
        assert MOST_RETRY_AFTER < SILENT_LIMIT, "/livez would end us first"


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b"[]", b"", b'"text"'])
async def test_a_refusal_that_is_not_the_api_servers_own_is_told_too(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer(web.Response(body=body, status=404))
        with pytest.raises(NotFoundError):
            await kube.get(PODS, "team-a", "tiny-1")


async def test_a_server_that_is_away_or_talks_nonsense_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer(web.Response(body=b"no json"))
        with pytest.raises(BrokenError):
            await kube.get(PODS, "team-a", "tiny-1")
    with pytest.raises((BrokenError, RuntimeError)):
        await kube.get(PODS, "team-a", "tiny-1")


@pytest.mark.parametrize("name", ["../nodes", "a/b", "UPPER", "", "a" * 254, "x?y=z", "%2e%2e"])
async def test_no_name_makes_another_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        for namespace, called in ((name, "tiny"), ("team-a", name)):
            with pytest.raises(InvalidNameError):
                await kube.get(PODS, namespace, called)
        assert server.requests == []


async def test_requests_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(tmp_path, monkeypatch) as (server, kube):
        server.answer({"metadata": {}})
        answers: list[Any] = await asyncio.gather(*(kube.get(PODS, "team-a", f"pod-{n}") for n in range(300)))
        assert len(answers) == 300
