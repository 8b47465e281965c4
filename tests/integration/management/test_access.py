"""Who may do what with the management API: what RBAC says, with the caller's own token, and nobody else."""

import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.integration.management.conftest import MakeManager
from tests.support.api import Api, ApiRefusedError
from tests.support.gateway import SECRETS, GatewayProcess, make_key
from tests.support.manage import MODEL, Manager, error, token_of
from tests.support.models import model
from tests.support.people import RBAC
from tests.support.waiting import eventually

READS = [("GET", ""), ("GET", "status")]
WRITES = [("PUT", ""), ("POST", "stop"), ("POST", "start"), ("POST", "restart"), ("DELETE", "")]


def ask(somebody: Manager, method: str, action: str) -> httpx.Response:
    return somebody.ask(method, somebody.path("tiny", action), {"spec": MODEL} if method == "PUT" else None)


def test_a_viewer_reads_and_writes_nothing(manager: MakeManager, api: Api) -> None:
    api.create(model("tiny"))
    viewer = manager("moorage-view")
    for method, action in READS:
        assert ask(viewer, method, action).status_code == 200
    for method, action in WRITES:
        told = error(ask(viewer, method, action))
        assert (told["status"], told["code"]) == (403, "forbidden"), (method, action)
        # In the API server's words: who, which verb, on what.
        assert f"system:serviceaccount:{api.namespace}:who-moorage-view" in told["message"]
    assert error(viewer.create("other"))["status"] == 403
    assert error(viewer.ask("POST", viewer.path("tiny", "generate"), {"prompt": "Hi"}))["status"] == 403
    assert [im["metadata"]["name"] for im in api.find("InferenceModel")] == ["tiny"]


def test_an_editor_writes(manager: MakeManager, api: Api) -> None:
    editor = manager("moorage-edit")
    assert editor.create().status_code == 201
    for method, action in (*READS, *WRITES):
        assert ask(editor, method, action).status_code in {200, 202}, (method, action)
    assert api.get("InferenceModel", "tiny") is None


def test_bad_input_42_somebody_without_rights_sees_nothing(manager: MakeManager, api: Api) -> None:
    api.create(model("tiny"))
    nobody = manager()
    for method, action in (*READS, *WRITES):
        # The same for one that is there and for one that is not: nothing is told of it.
        told = error(ask(nobody, method, action))
        assert told["status"] == 403
        other = nobody.ask(method, nobody.path("void", action), {"spec": MODEL} if method == "PUT" else None)
        assert error(other)["message"] == told["message"].replace('"tiny"', '"void"')
    assert nobody.ask("GET", "/api/models").status_code == 403
    assert nobody.ask("GET", f"/api/export?namespace={api.namespace}").status_code == 403


@pytest.mark.parametrize("token", ["", "wrong", "ey.not.one"])
def test_bad_input_41_a_token_that_is_none_is_401(manager: MakeManager, api: Api, token: str) -> None:
    api.create(model("tiny"))
    somebody = manager(token=token or "x")
    if not token:
        somebody.http.headers.pop("Authorization")
    for method, path in (
        *((method, somebody.path("tiny", action)) for method, action in (*READS, *WRITES)),
        *(("GET", path) for path in ("/api/models", "/api/system/status", "/api/system/gpu", "/api/export")),
    ):
        answer = somebody.ask(method, path, {"spec": MODEL} if method == "PUT" else None)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert api.get("InferenceModel", "tiny")


def test_bad_input_41_a_token_for_the_data_plane_is_none_for_the_api_server(manager: MakeManager, api: Api) -> None:
    somebody = manager(token=token_of(api, "caller", "moorage-edit", audiences=["moorage-gateway"]))
    assert error(somebody.ask("GET", "/api/models"))["status"] == 401


def test_bad_input_57_what_a_client_says_of_itself_counts_for_nothing(manager: MakeManager, api: Api) -> None:
    api.create(model("tiny"))
    nobody = manager()
    forged = {
        "X_Moorage_Key": "manager",
        "X_Moorage_Caller": "admin",
        "Impersonate_User": "kubernetes-admin",
        "Impersonate_Group": "system:masters",
        "X_Forwarded_User": "admin",
        "X_Remote_User": "admin",
    }
    told = error(nobody.ask("GET", nobody.path("tiny"), **forged))
    assert told["status"] == 403
    assert f"system:serviceaccount:{api.namespace}:who" in told["message"]
    nobody.http.headers.pop("Authorization")
    assert nobody.ask("GET", nobody.path("tiny"), **forged).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        *("/api/models/../system/status", "/api//models", "/api/./models", "/api/models/", "/api/models/a%2f..%2fb"),
        *("/api/models/%2e%2e/x", "/docs/../api/models", "/docs/", "/docs/..", "/openapi.json/", "/api"),
        "/api/models/a/b;/status",
    ],
)
def test_bad_input_43_a_path_that_can_be_read_in_two_ways_leads_nowhere(
    gateway: GatewayProcess, manager: MakeManager, path: str
) -> None:
    credential = manager("moorage-view").http.headers["Authorization"]
    _, _, authority = gateway.url.partition("://")
    host, _, port = authority.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        # As it stands: a client library would tidy it up.
        for authorization, status in (("", b"401"), (f"Authorization: {credential}\r\n", b"404")):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n".encode())
            answer = client.recv(65536)
            # What is not below /api or /docs is the data plane's: a token for the API server is none for it.
            ours = path.startswith(("/api/", "/docs/"))
            assert answer.split(b" ", 2)[1] == (status if ours else b"401"), answer


def key(admin: Api, identity: str, **entries: str) -> str:
    """A key, in place of one that an earlier test has left."""
    with suppress(ApiRefusedError):
        admin.request("DELETE", f"{SECRETS}/key-{identity}")
    return make_key(admin, identity, **entries)


def test_an_api_key_manages_only_with_its_scope_the_charts_and_rbacs_consent(
    manager: MakeManager, admin: Api, api: Api
) -> None:
    api.create(model("tiny"))
    plain = manager(token=key(admin, "plain", models="*/*"))
    eventually(lambda: plain.ask("GET", plain.path("tiny")).status_code == 403, "the key is known", seconds=5)
    assert "scopes" in error(plain.ask("GET", plain.path("tiny")))["message"]
    # The chart does not name it, so the gateway may not act as it.
    other = manager(token=key(admin, "not-in-chart", scopes="manage"))
    eventually(lambda: other.ask("GET", other.path("tiny")).status_code == 403, "the key is known", seconds=5)
    assert "impersonate" in error(other.ask("GET", other.path("tiny")))["message"]
    # The chart does, and nobody has given it rights.
    known = manager(token=key(admin, "manager", scopes="manage"))
    eventually(lambda: known.ask("GET", known.path("tiny")).status_code == 403, "the key is known", seconds=5)
    assert "moorage:key:manager" in error(known.ask("GET", known.path("tiny")))["message"]
    binding = {
        "metadata": {"name": "key"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "moorage-edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "moorage:key:manager"}],
    }
    api.request("POST", f"{RBAC}/namespaces/{api.namespace}/rolebindings", json=binding)
    eventually(lambda: known.ask("GET", known.path("tiny")).status_code == 200, "its rights are at work", seconds=10)
    assert known.ask("POST", known.path("tiny", "stop")).status_code == 202
    assert error(known.ask("GET", "/api/models?namespace=default"))["status"] == 403
    # It is not for requests to models: that is another scope.
    assert error(known.ask("POST", known.path("tiny", "generate"), {"prompt": "Hi"}))["code"] == "model_not_found"
    admin.request("DELETE", f"{SECRETS}/key-manager")
    eventually(lambda: known.ask("GET", known.path("tiny")).status_code == 401, "the key is gone", seconds=5)


def test_each_write_is_a_line_in_the_log_and_no_credential_is(
    manager: MakeManager, gateway: GatewayProcess, api: Api
) -> None:
    editor, viewer = manager("moorage-edit"), manager("moorage-view")
    editor.create("audited", spec={**MODEL, "description": "not for the log"})
    editor.ask("POST", editor.path("audited", "stop"), X_Request_Id="r-1")
    viewer.ask("DELETE", viewer.path("audited"))
    viewer.ask("GET", viewer.path("audited"))
    name = f"inferencemodels/{api.namespace}/audited"

    def told() -> list[tuple[str, str, str]]:
        return [(line["who"].rpartition(":")[2], line["verb"], line["outcome"]) for line in lines()]

    def lines() -> list[dict[str, Any]]:
        return [line for line in gateway.lines() if line["message"] == "audit" and line["object"] == name]

    eventually(lambda: len(lines()) == 3, "three lines")
    assert told() == [
        ("who-moorage-edit", "create", "done"),
        ("who-moorage-edit", "stop", "done"),
        ("who-moorage-view", "delete", "forbidden"),
    ]
    # The data plane gives a request a name that came without one.
    ids = [line["request_id"] for line in lines()]
    assert ids[1] == "r-1"
    assert all(ids)
    log = gateway.log.read_text()
    assert "not for the log" not in log
    for somebody in (editor, viewer):
        assert somebody.http.headers["Authorization"].split(".")[-1] not in log


def test_bad_input_59_no_other_page_frames_ours_or_borrows_a_reader_s_rights(manager: MakeManager, api: Api) -> None:
    api.create(model("tiny"))
    editor = manager("moorage-edit")
    editor.http.headers["Origin"] = "https://evil.example"
    for path in ("/docs", "/docs/docs.js", "/docs/docs.css", "/openapi.json"):
        page = editor.ask("GET", path)
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not {"set-cookie", "access-control-allow-origin"} & {*page.headers}
    # There is nothing that a browser sends by itself, so a foreign page has no right that it could use.
    told = ask(editor, "GET", "")
    assert told.headers["content-type"].startswith("application/json")
    assert not {"set-cookie", "access-control-allow-origin"} & {*told.headers}
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    before = editor.ask("OPTIONS", editor.path("tiny"), **asked)
    assert not before.is_success
    assert "access-control-allow-origin" not in before.headers
    editor.http.headers.pop("Authorization")
    for method, action in WRITES:
        body = {"spec": MODEL} if method == "PUT" else None
        assert editor.ask(method, editor.path("tiny", action), body, Cookie="token=x").status_code == 401
    assert api.get("InferenceModel", "tiny")
