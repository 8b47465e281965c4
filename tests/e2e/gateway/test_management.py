"""The management API on a real node: a model from its making to its answers, its logs, a restart, and its end."""

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.gateway.test_gateway import CAPITAL, SMALL
from tests.support.api import Api, is_ready, reason
from tests.support.manage import Manager, token_of
from tests.support.waiting import eventually


@pytest.fixture
def editor(gateway: str, api: Api) -> Iterator[Manager]:
    """Somebody who may edit models and read logs."""
    token = token_of(api, "editor", "edit")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=gateway, headers=headers, timeout=60, trust_env=False) as client:
        yield Manager(client, api.namespace)


def test_a_model_lives_and_ends_by_the_management_api(editor: Manager, api: Api) -> None:
    eventually(lambda: editor.ask("GET", "/docs").status_code == 200, "the management API answers", seconds=30)
    eventually(
        lambda: editor.ask("GET", f"/api/models?namespace={api.namespace}").status_code == 200, "the role", seconds=10
    )
    flat = {"framework": "llama.cpp", "source": "oci://localhost/models/smollm2:135m-q4", "n_ctx": 1024}
    made = editor.create("smollm2", **flat, spec={"resources": SMALL["resources"]})
    assert made.status_code == 201, made.text
    ready = api.wait("InferenceModel", "smollm2", is_ready, what="ready", seconds=90)
    assert ready
    assert editor.ask("GET", editor.path("smollm2", "status")).json()["phase"] == "Running"

    asked = {"prompt": CAPITAL, "max_tokens": 4, "temperature": 0}
    eventually(lambda: editor.ask("POST", editor.path("smollm2", "generate"), asked).status_code == 200, "an answer")
    answer = editor.ask("POST", editor.path("smollm2", "generate"), asked).json()
    assert "Paris" in answer["choices"][0]["text"]
    streamed = editor.ask("POST", editor.path("smollm2", "generate"), {**asked, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.rstrip().endswith("data: [DONE]")

    _follows_a_log_while_the_model_is_restarted(editor, api)

    assert editor.ask("POST", editor.path("smollm2", "stop")).status_code == 202
    api.wait("InferenceModel", "smollm2", lambda im: reason(im) == "Stopped", what="stopped", seconds=60)
    assert editor.ask("DELETE", editor.path("smollm2")).status_code == 200
    api.wait("Deployment", "smollm2", lambda found: found is None, what="gone", seconds=60)


def _follows_a_log_while_the_model_is_restarted(editor: Manager, api: Api) -> None:
    (before,) = (pod["metadata"]["name"] for pod in api.find("Pod", "moorage.dev/model=smollm2"))
    whole = editor.ask("GET", editor.path("smollm2", "logs?tail=50"))
    assert whole.status_code == 200
    assert '"message"' in whole.text
    with editor.http.stream("GET", editor.path("smollm2", f"logs?follow=true&tail=1&pod={before}")) as log:
        lines = log.iter_lines()
        assert next(lines)
        assert editor.ask("POST", editor.path("smollm2", "restart")).status_code == 202
        # The old pod is told to end, says so, and with it its log ends; it is served on meanwhile.
        began = time.monotonic()
        assert list(lines)
        assert time.monotonic() - began < 90
    api.wait("InferenceModel", "smollm2", is_ready, what="ready again", seconds=60)
    (after,) = (
        pod["metadata"]["name"]
        for pod in api.find("Pod", "moorage.dev/model=smollm2")
        if "deletionTimestamp" not in pod["metadata"]
    )
    assert after != before
