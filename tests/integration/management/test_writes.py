"""What is refused by name, two who change one model, and one who asks twice."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.management.conftest import MakeManager
from tests.support.api import Api
from tests.support.gateway import GatewayProcess
from tests.support.manage import MODEL, Manager, error
from tests.support.models import model


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"spec": {**MODEL, "priority": 11}}, "spec.priority", "less than or equal to 10"),
        ({"spec": {**MODEL, "framework": "vLLM"}}, "spec.framework", "Unsupported value"),
        ({"spec": MODEL, "gpu_count": -1}, "spec.gpu.count", "greater than or equal to 0"),
        ({"spec": {"framework": "llamacpp"}}, "spec.source", "Required"),
        ({"spec": {**MODEL, "source": {"uri": "file:///etc/passwd"}}}, "spec.source.uri", ""),
        ({"spec": MODEL, "gpu_cuont": 1}, "gpu_cuont", "Extra inputs"),
        ({"spec": MODEL, "priority": "5"}, "priority", "integer"),
        ({"spec": MODEL, "framework": "vllm"}, "framework", "leave one of them out"),
        ({"spec": {**MODEL, "gpu": 3}, "gpu_count": 1}, "spec.gpu", "no object"),
    ],
)
def test_bad_input_01_a_wrong_field_is_named(
    editor: Manager, api: Api, body: dict[str, Any], field: str, says: str
) -> None:
    told = error(editor.create(**body))
    assert told["status"] in {400, 422}, told
    assert told["code"] == "invalid"
    assert field in {entry["field"] for entry in told["fields"]}, told
    assert says in told["message"]
    assert api.get("InferenceModel", "tiny") is None


def test_bad_input_02_an_unknown_field_of_the_spec_is_refused(editor: Manager, api: Api) -> None:
    told = error(editor.create(spec={**MODEL, "gpuCount": 1}))
    assert told["status"] == 400
    assert 'unknown field "spec.gpuCount"' in told["message"]
    api.create(model("tiny"))
    assert error(editor.ask("PUT", editor.path("tiny"), {"spec": {**MODEL, "x": 1}}))["status"] == 400


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b'{"spec": NaN}', "not valid JSON"),
        (b'{"name": "a", "name": "b"}', "there twice"),
        (b'{"name": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", ""),
        (b"", ""),
    ],
)
def test_bad_input_47_a_body_that_is_no_json_is_refused_quickly(editor: Manager, content: bytes, says: str) -> None:
    answer = editor.http.post("/api/models", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}, answer.text
    assert says in error(answer)["message"]
    assert answer.elapsed.total_seconds() < 2


def test_bad_input_08_a_name_that_none_can_have_is_named(editor: Manager) -> None:
    for name in ("UPPER", "a" * 64, "-a", "a.b"):
        told = error(editor.create(name, spec=MODEL))
        assert told["status"] in {400, 422}
    assert error(editor.create("", spec=MODEL))["fields"][0]["field"] == "name"
    assert error(editor.ask("GET", "/api/models/UPPER/name"))["code"] == "invalid_name"


def test_bad_input_60_a_stale_put_is_refused_with_the_current_version(editor: Manager, api: Api) -> None:
    old = editor.create().json()["resourceVersion"]
    api.patch("InferenceModel", "tiny", {"spec": {"priority": 3}})
    current = editor.ask("GET", editor.path("tiny")).json()["resourceVersion"]
    assert old != current
    by_header = editor.ask("PUT", editor.path("tiny"), {"spec": MODEL}, If_Match=f'"{old}"')
    by_body = editor.ask("PUT", editor.path("tiny"), {"spec": MODEL, "resourceVersion": old})
    deleted = editor.ask("DELETE", editor.path("tiny"), If_Match=f'"{old}"')
    for answer, status in ((by_header, 412), (by_body, 409), (deleted, 412)):
        told = error(answer)
        assert (told["status"], told["code"]) == (status, "conflict")
        assert current in told["fields"][0]["message"]
        assert answer.headers["etag"] == f'"{current}"'
    live = api.get("InferenceModel", "tiny")
    assert live
    assert live["spec"]["priority"] == 3
    assert editor.ask("PUT", editor.path("tiny"), {"spec": MODEL}, If_Match=f'"{current}"').status_code == 200
    assert error(editor.ask("PUT", editor.path("tiny"), {"spec": MODEL}, If_Match="x"))["status"] == 400


def test_bad_input_60_of_two_puts_at_once_one_is_told_of_the_other(editor: Manager) -> None:
    version = editor.create().json()["resourceVersion"]

    def put(priority: int) -> int:
        body = {"spec": {**MODEL, "priority": priority}}
        return editor.ask("PUT", editor.path("tiny"), body, If_Match=f'"{version}"').status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(put, range(1, 9))) == [200, *[412] * 7]


def test_bad_input_60_a_post_sent_twice_is_done_once(editor: Manager, api: Api) -> None:
    body = {"name": "tiny", "namespace": api.namespace, "spec": MODEL}
    first = editor.ask("POST", "/api/models", body, Idempotency_Key="k-1")
    again = editor.ask("POST", "/api/models", body, Idempotency_Key="k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert first.json() == again.json()
    # Without the key, or with another one, it is another request.
    assert error(editor.ask("POST", "/api/models", body))["code"] == "already_exists"
    assert error(editor.ask("POST", "/api/models", body, Idempotency_Key="k-2"))["status"] == 409
    for other in ({**body, "priority": 7}, {**body, "name": "other"}):
        told = error(editor.ask("POST", "/api/models", other, Idempotency_Key="k-1"))
        assert (told["status"], told["code"]) == (422, "idempotency_key_reused")
    assert len(api.find("InferenceModel")) == 1
    assert "moorage.dev/idempotency-key" not in first.json()["labels"]


def test_bad_input_60_posts_sent_at_once_are_done_once(editor: Manager, api: Api) -> None:
    body = {"name": "tiny", "namespace": api.namespace, "spec": MODEL}

    def post(_: int) -> httpx.Response:
        return editor.ask("POST", "/api/models", body, Idempotency_Key="at-once")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8, [answer.text for answer in answers]
    assert len({answer.json()["createdAt"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1


def test_a_key_of_somebody_else_is_another_one(manager: MakeManager, api: Api) -> None:
    one, other = manager("moorage-edit"), manager("moorage-edit", "view")
    for somebody, name in ((one, "a"), (other, "b")):
        body = {"name": name, "namespace": api.namespace, "spec": MODEL}
        assert somebody.ask("POST", "/api/models", body, Idempotency_Key="same").status_code == 201


def test_bad_input_60_a_restart_sent_twice_is_one(editor: Manager, api: Api) -> None:
    api.create(model("tiny"))
    answers = [editor.ask("POST", editor.path("tiny", "restart"), Idempotency_Key="k") for _ in range(2)]
    versions = {answer.json()["resourceVersion"] for answer in answers}
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len(versions) == 1
    assert editor.ask("POST", editor.path("tiny", "restart")).json()["resourceVersion"] not in versions


def test_a_put_cannot_rename(editor: Manager, api: Api) -> None:
    api.create(model("tiny"))
    told = error(editor.ask("PUT", editor.path("tiny"), {"name": "other", "spec": MODEL}))
    assert (told["status"], told["fields"][0]["field"]) == (422, "name")


def test_bad_input_46_a_body_over_the_limit_is_413(editor: Manager, gateway: GatewayProcess) -> None:
    answer = editor.http.post("/api/models", content=b"x" * (4 * 2**20 + 1))
    assert answer.status_code == 413
    assert gateway.process.poll() is None
