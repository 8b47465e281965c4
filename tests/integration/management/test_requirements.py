"""The management API row by row, as requirements.md B has it: models, actions on them, the system, the page."""

import json
from typing import Any

import pytest

from tests.integration.management.conftest import MakeManager
from tests.support.api import Api, reason
from tests.support.gateway import GatewayProcess
from tests.support.manage import MODEL, Manager, error
from tests.support.models import model
from tests.support.operator import OperatorProcess
from tests.support.waiting import eventually

FLAT: dict[str, Any] = {
    "display_name": "Tiny",
    "description": "Answers quickly.",
    "labels": {"team": "a"},
    "framework": "llama.cpp",
    "source": MODEL["source"],
    "n_ctx": 2048,
    "n_threads": 2,
    "temperature": 0.5,
    "top_p": 0.9,
    "cpu_cores": 1.5,
    "memory": "1Gi",
    "priority": 7,
}


def test_post_models_makes_a_model_of_flat_names(editor: Manager, api: Api) -> None:
    answer = editor.create(**FLAT)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == editor.path("tiny")
    told = answer.json()
    assert (told["id"], told["phase"], told["labels"]) == (f"{api.namespace}/tiny", "Unknown", {"team": "a"})
    live = api.get("InferenceModel", "tiny")
    assert live
    wanted = {
        "displayName": "Tiny",
        "description": "Answers quickly.",
        "framework": "llamacpp",
        "source": MODEL["source"],
        "contextLength": 2048,
        "llamacpp": {"threads": 2},
        "parameters": {"temperature": 0.5, "topP": 0.9},
        "priority": 7,
    }
    assert {name: live["spec"][name] for name in wanted} == wanted
    assert live["spec"]["resources"] == {"cpu": "1500m", "memory": "1Gi"}


def test_post_models_makes_a_model_of_a_spec_or_of_a_whole_object(editor: Manager, api: Api) -> None:
    assert editor.create("one", spec=MODEL).status_code == 201
    whole = {**model("two"), "metadata": {"name": "two", "namespace": api.namespace, "annotations": {"a/b": "c"}}}
    assert editor.ask("POST", "/api/models", whole).status_code == 201
    one, two = api.get("InferenceModel", "one"), api.get("InferenceModel", "two")
    assert one
    assert two
    assert one["spec"] == two["spec"]
    assert two["metadata"]["annotations"]["a/b"] == "c"


def test_get_models_lists_and_pages(editor: Manager, api: Api) -> None:
    for name in ("a", "b", "c"):
        api.create(model(name, priority=3 if name == "b" else 5))
    names, following = [], ""
    while True:
        query = f"namespace={api.namespace}&limit=2" + (f"&continue={following}" if following else "")
        page = editor.ask("GET", f"/api/models?{query}").json()
        names += [entry["name"] for entry in page["models"]]
        following = page["continue"]
        if not following:
            break
    assert names == ["a", "b", "c"]


def test_get_models_id_reads_by_its_full_and_by_its_short_name(manager: MakeManager, api: Api) -> None:
    name = f"only-{api.namespace}"
    api.create(model(name))
    editor = manager("moorage-edit")
    told = editor.ask("GET", editor.path(name))
    assert told.status_code == 200
    assert told.headers["etag"] == f'"{told.json()["resourceVersion"]}"'
    assert told.json()["spec"]["framework"] == "llamacpp"
    # Without the right to look everywhere, a name alone is not enough.
    assert error(editor.ask("GET", f"/api/models/{name}"))["code"] == "forbidden"
    everybody = manager("moorage-view", everywhere=True)
    eventually(lambda: everybody.ask("GET", "/api/models").status_code == 200, "the role is at work")
    for action in ("", "/status"):
        assert everybody.ask("GET", f"/api/models/{name}{action}").json()["id"] == f"{api.namespace}/{name}"
    assert error(everybody.ask("GET", "/api/models/nobody"))["code"] == "not_found"


def test_put_models_id_replaces_the_spec(editor: Manager, api: Api) -> None:
    api.create({**model("tiny", priority=3), "metadata": {"name": "tiny", "labels": {"team": "a"}}})
    answer = editor.ask("PUT", editor.path("tiny"), {"spec": {**MODEL, "contextLength": 512}})
    assert answer.status_code == 200, answer.text
    live = api.get("InferenceModel", "tiny")
    assert live
    assert live["spec"]["contextLength"] == 512
    assert live["spec"]["priority"] == 5
    assert live["metadata"]["labels"] == {"team": "a"}


def test_delete_models_id_deletes(editor: Manager, api: Api) -> None:
    api.create(model("tiny"))
    answer = editor.ask("DELETE", editor.path("tiny"))
    assert (answer.status_code, answer.json()) == (200, {"id": f"{api.namespace}/tiny", "deleted": True})
    assert api.get("InferenceModel", "tiny") is None
    assert error(editor.ask("DELETE", editor.path("tiny")))["status"] == 404


def test_post_stop_and_start_are_spec_suspend(editor: Manager, api: Api, operator: OperatorProcess) -> None:
    api.create(model("tiny"))
    api.wait("Deployment", "tiny", lambda found: found and found["spec"]["replicas"] == 1, what="one replica")
    assert editor.ask("POST", editor.path("tiny", "stop")).status_code == 202
    api.wait("Deployment", "tiny", lambda found: found and found["spec"]["replicas"] == 0, what="no replica")
    api.wait("InferenceModel", "tiny", lambda im: reason(im) == "Stopped", what="Stopped")
    assert editor.ask("GET", editor.path("tiny", "status")).json()["phase"] == "Stopped"
    assert editor.ask("POST", editor.path("tiny", "start")).status_code == 202
    api.wait("Deployment", "tiny", lambda found: found and found["spec"]["replicas"] == 1, what="one replica")
    assert operator.errors() == []


def test_post_start_starts_a_model_of_no_replicas(editor: Manager, api: Api) -> None:
    api.create(model("tiny", replicas=0))
    assert editor.ask("POST", editor.path("tiny", "start")).json()["spec"]["replicas"] == 1


def test_post_restart_makes_other_pods_and_is_not_fought_over(
    editor: Manager, api: Api, operator: OperatorProcess
) -> None:
    api.create(model("tiny"))
    api.wait("Deployment", "tiny", lambda found: found and found["status"].get("replicas") == 1, what="a pod")

    def revisions() -> set[str]:
        pods = api.find("Pod", "moorage.dev/model=tiny")
        return {pod["metadata"]["labels"]["moorage.dev/revision"] for pod in pods}

    (before,) = revisions()
    assert editor.ask("POST", editor.path("tiny", "restart")).status_code == 202
    eventually(lambda: revisions() - {before}, "a pod of another revision")
    deployment = api.get("Deployment", "tiny")
    assert deployment
    assert "moorage.dev/restarted-at" in deployment["spec"]["template"]["metadata"]["annotations"]
    assert operator.errors() == []
    # One that is stopped has nothing to restart.
    editor.ask("POST", editor.path("tiny", "stop"))
    assert error(editor.ask("POST", editor.path("tiny", "restart")))["code"] == "stopped"


def test_get_status_says_why_and_where_in_the_line(editor: Manager, api: Api, operator: OperatorProcess) -> None:
    api.create(model("huge", gpu={"count": 8, "resourceName": "moorage.test/none"}))
    api.wait("InferenceModel", "huge", lambda im: reason(im) in {"WaitingForGPU", "NoSuchResource"}, what="a reason")
    told = editor.ask("GET", editor.path("huge", "status")).json()
    assert (told["phase"], told["ready"]) == ("WaitingForResources", False)
    assert "moorage.test/none" in told["message"]
    assert told["status"]["conditions"]
    assert operator.errors() == []


def test_get_logs_of_a_model_without_pods_says_so(manager: MakeManager, api: Api) -> None:
    api.create(model("tiny", suspend=True))
    editor = manager("view", "moorage-edit")
    told = error(editor.ask("GET", editor.path("tiny", "logs?follow=true")))
    assert (told["status"], told["code"]) == (404, "no_pods")


def test_post_generate_of_a_model_that_does_not_run_is_the_data_planes_503(editor: Manager, api: Api) -> None:
    api.create(model("tiny", suspend=True))
    body = {"prompt": "Hi", "max_tokens": 4, "temperature": 0}

    def told() -> dict[str, Any]:
        return error(editor.ask("POST", editor.path("tiny", "generate"), body))

    eventually(lambda: told()["code"] == "model_not_ready", "the data plane has seen the model", seconds=5)
    assert told()["status"] == 503
    assert error(editor.ask("POST", editor.path("nobody", "generate"), body))["code"] == "model_not_found"


def test_get_system_status_counts_models_by_phase(manager: MakeManager, api: Api) -> None:
    api.create(model("tiny"))
    told = manager("moorage-view", everywhere=True).ask("GET", "/api/system/status").json()
    assert told["kubernetes"]["version"].startswith("v1.")
    assert told["models"]["total"] >= 1
    assert told["refused"] == []
    # Somebody who may see nothing is told that, and no numbers.
    nobody = manager().ask("GET", "/api/system/status").json()
    assert nobody["models"] is None
    assert "inferencemodels" in nobody["refused"][0]["what"]


def test_get_system_gpu_tells_what_nodes_have_and_who_has_it(
    manager: MakeManager, api: Api, operator: OperatorProcess
) -> None:
    api.create(model("tiny", gpu={"count": 2}))
    api.wait("InferenceModel", "tiny", lambda im: im and im.get("status") and _placed(api), what="a node")
    told = manager("cluster-admin", everywhere=True).ask("GET", "/api/system/gpu").json()
    total = told["resources"]["nvidia.com/gpu"]
    assert total["capacity"] == total["allocatable"] == 8
    assert total["used"] >= 2
    holders = [entry for node in told["nodes"] for entry in node["resources"]["nvidia.com/gpu"]["by"]]
    assert {"name": f"{api.namespace}/tiny", "count": 2} in holders
    nobody = manager().ask("GET", "/api/system/gpu").json()
    assert (nobody["nodes"], nobody["resources"]) == (None, None)
    assert len(nobody["refused"]) == 3
    assert operator.errors() == []


def _placed(api: Api) -> bool:
    return any(pod["spec"].get("nodeName") for pod in api.find("Pod", "moorage.dev/model=tiny"))


def test_the_page_at_docs_is_whole_and_needs_no_other_host(manager: MakeManager, gateway: GatewayProcess) -> None:
    nobody = manager(token="none")
    nobody.http.headers.pop("Authorization")
    page = nobody.ask("GET", "/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for part in ("/docs/docs.js", "/docs/docs.css"):
        assert part in page.text
        assert nobody.ask("GET", part).status_code == 200
    assert "://" not in page.text + nobody.ask("GET", "/docs/docs.js").text + nobody.ask("GET", "/docs/docs.css").text
    paths = nobody.ask("GET", "/openapi.json").json()["paths"]
    one = "/api/models/{namespace}/{name}"
    wanted = {
        "/api/models": {"get", "post"},
        one: {"get", "put", "delete"},
        **{f"{one}/{action}": {"post"} for action in ("start", "stop", "restart", "generate")},
        **{f"{one}/{action}": {"get"} for action in ("status", "logs")},
        "/api/system/status": {"get"},
        "/api/system/gpu": {"get"},
        "/api/export": {"get"},
    }
    assert {path: set(methods) for path, methods in paths.items()} == wanted
    assert gateway.url not in json.dumps(paths)


@pytest.mark.parametrize("path", ["/api/monitoring/metrics", "/api/nothing", "/api/models/a/b/c/d"])
def test_what_there_is_not_is_404(editor: Manager, path: str) -> None:
    assert error(editor.ask("GET", path))["code"] == "unknown_url"
