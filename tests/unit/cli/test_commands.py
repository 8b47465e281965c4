"""What the command line says when the API server refuses, or is not there."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from moorage_cli.__main__ import main
from tests.unit.cli.test_kubeconfig import config


class Server(ThreadingHTTPServer):
    """An API server that answers by the request's path; what is not there is a 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """Answer from the table."""
        path = self.path.partition("?")[0]
        self.server.asked.append(self.path)
        status, body = self.server.answers.get(path, (404, "404 page not found"))
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Private", "s3cret")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


KEYS = "/api/v1/namespaces/moorage-keys/secrets"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server of the kubeconfig."""
    path = Path(config(tmp_path / "config", "here", {"token": "t0ken"}))
    with Server() as server:
        path.write_text(path.read_text().replace("http://here.example", f"http://127.0.0.1:{server.server_port}"))
        monkeypatch.setenv("KUBECONFIG", str(path))
        monkeypatch.delenv("HTTP_PROXY", raising=False)
        monkeypatch.delenv("http_proxy", raising=False)
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def status(code: int, message: str) -> tuple[int, object]:
    """A refusal, as the API server sends it."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (status(401, "Unauthorized"), "401 Unauthorized): log in, or choose another context"),
        (status(403, 'secrets is forbidden: User "me" cannot list'), 'secrets is forbidden: User "me" cannot list'),
        (status(500, "etcdserver: no leader"), "etcdserver: no leader"),
        ((503, "upstream s3cret"), "the API server answered 503"),
        ((404, "404 page not found"), "CustomResourceDefinitions"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_only(
    server: Server, capsys: pytest.CaptureFixture[str], answer: tuple[int, object], says: str
) -> None:
    server.answers[KEYS] = answer
    assert main(["key", "list"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert "s3cret" not in told.err
    assert "t0ken" not in told.err


def test_a_server_that_is_away_is_named(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.shutdown()
    server.server_close()
    assert main(["export"]) == 1
    told = capsys.readouterr().err
    assert "the API server cannot be reached" in told
    assert "Connection refused" in told
    assert told.count("\n") == 1


def test_cluster_21_a_namespace_that_does_not_exist_is_no_empty_table(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers[KEYS] = (200, {"kind": "SecretList", "metadata": {}, "items": []})
    assert main(["key", "list"]) == 1
    assert 'namespace "moorage-keys" not found' in capsys.readouterr().err
    for visible in ((200, {"kind": "Namespace"}), status(403, "forbidden")):
        server.answers["/api/v1/namespaces/moorage-keys"] = visible
        assert main(["key", "list"]) == 0
        assert capsys.readouterr().out.startswith("NAME")


def test_lists_are_read_page_by_page(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [
        {"kind": "InferenceModelList", "metadata": {"continue": "more"}, "items": [model("a")]},
        {"kind": "InferenceModelList", "metadata": {}, "items": [model("b")]},
    ]

    class Turning(dict[str, tuple[int, object]]):
        def get(self, path: str, default: object = None) -> tuple[int, object]:
            return (200, pages.pop(0) if path.endswith("models") else {"metadata": {}, "items": []})

    server.answers = Turning()
    assert main(["export", "-A"]) == 0
    assert capsys.readouterr().out.count("name: ") == 2
    assert "continue=more" in server.asked[1]


def model(name: str) -> dict[str, object]:
    """A model in a list."""
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {}}


@pytest.mark.parametrize("name", ["Bad.Name", "1st", "a" * 41, "..", "a/b"])
def test_a_name_that_no_model_can_have_is_refused_before_anything_is_asked(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    manifest = {"apiVersion": "moorage.dev/v1alpha1", "kind": "InferenceModel", "metadata": {"name": name}, "spec": {}}
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    assert main(["import", str(tmp_path / "model.json")]) == 1
    rule = 'must consist of lowercase letters, digits and "-", start with a letter, at most 40 characters.'
    assert f'metadata.name "{name}": {rule}' in capsys.readouterr().err
    assert server.asked == []


@pytest.mark.parametrize("command", [["key", "list"], ["export"], ["import", "-"]])
def test_a_namespace_that_would_be_another_path_is_refused(
    server: Server, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "-n", "../kube-system"]) == 1
    assert 'namespace "../kube-system": must consist of' in capsys.readouterr().err
    assert server.asked == []


def test_help_does_not_load_the_client() -> None:
    code = "import sys, moorage_cli.__main__ as m; m._parser().format_help(); sys.exit('kubernetes' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
