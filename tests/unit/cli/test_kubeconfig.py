"""Which cluster the command line takes, and as whom: what kubectl would."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from moorage_cli.kubeconfig import reach
from moorage_cli.output import CommandError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a kubeconfig."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


def config(path: Path, name: str, user: dict[str, Any], **more: Any) -> str:
    """A kubeconfig with one context."""
    content = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **more}}],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}.example"}}],
        "users": [{"name": name, "user": user}],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def login(client: ApiClient) -> tuple[str, str]:
    """The server, and what is sent to log in."""
    headers: dict[str, str] = {}
    client.update_params_for_auth(headers, [], ["BearerToken"], "/", "GET", None)
    return client.configuration.host, headers["authorization"]


def reached(path: str | None = None, context: str | None = None) -> tuple[str, str, str]:
    """Server, login, namespace."""
    client, namespace = reach(path, context)
    with client:
        return *login(client), namespace


def test_the_option_the_variable_the_home_in_this_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(home / ".kube" / "config", "home", {"token": "h"})
    assert reached() == ("http://home.example", "Bearer h", "default")
    first = config(home / "first", "first", {"token": "f"}, namespace="team-a")
    second = config(home / "second", "second", {"token": "s"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:/nonexistent:{second}")
    assert reached() == ("http://first.example", "Bearer f", "team-a")
    assert reached(context="second") == ("http://second.example", "Bearer s", "default")
    assert reached(second) == ("http://second.example", "Bearer s", "default")
    with pytest.raises(CommandError, match="third"):
        reached(context="third")


def test_without_any_it_is_said_what_would_do() -> None:
    with pytest.raises(CommandError, match=r"~/\.kube/config does not exist: give --kubeconfig FILE or set KUBECONFIG"):
        reached()
    with pytest.raises(CommandError, match="/nonexistent does not exist"):
        reached("/nonexistent")


@pytest.mark.parametrize(
    "text",
    ["a: [", "", "text", "[]", "users: [{}]", "{current-context: a, contexts: [{name: a, context: {}}]}", "\x00"],
)
def test_a_mistaken_kubeconfig_is_named(home: Path, text: str) -> None:
    (home / "config").write_text(text)
    with pytest.raises(CommandError, match=str(home / "config")):
        reached(str(home / "config"))


def test_a_mistaken_entry_is_not_told_with_its_token(home: Path) -> None:
    path = config(home / "config", "a", {})
    content = yaml.safe_load(Path(path).read_text())
    content["users"] = [{"name": "a", "token": "s3cret"}]
    Path(path).write_text(yaml.safe_dump(content))
    with pytest.raises(CommandError, match="Expected key user") as error:
        reached(path)
    assert "s3cret" not in str(error.value)


def test_a_token_file_may_end_with_a_newline_and_lies_beside_its_kubeconfig(home: Path) -> None:
    (home / "token").write_text("from-file\n")
    assert reached(config(home / "config", "a", {"tokenFile": "token"}))[1] == "Bearer from-file"


@pytest.mark.parametrize("token", ["two\nlines", "s3crét"])
def test_a_token_that_no_header_can_have_is_refused_and_not_told(home: Path, token: str) -> None:
    with pytest.raises(CommandError, match="the token of the context a") as error:
        reached(config(home / "config", "a", {"token": token}))
    assert token not in str(error.value)


def plugin(path: Path, text: str, **more: Any) -> dict[str, Any]:
    """A user whose credentials a program gives."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), **more}}


def test_a_plugin_gives_the_token(home: Path) -> None:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "$1-$WHO"}}
    text = json.dumps(answer).replace('"', '\\"')
    script = f'case "$KUBERNETES_EXEC_INFO" in *cloud.example*) ;; *) exit 1;; esac\necho "{text}"'
    user = plugin(home / "login", script, args=["for"], env=[{"name": "WHO", "value": "me"}], provideClusterInfo=True)
    assert reached(config(home / "config", "cloud", user))[1] == "Bearer for-me"


@pytest.mark.parametrize("text", ["echo expired >&2; exit 3", "echo nothing", "echo '{}'"])
def test_a_plugin_that_gives_nothing_is_named_with_its_hint(home: Path, text: str) -> None:
    user = plugin(home / "login", text, installHint="log in first")
    with pytest.raises(CommandError, match="login of the context cloud gave no credentials: log in first"):
        reached(config(home / "config", "cloud", user))


def test_a_plugin_that_is_not_there_is_named(home: Path) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "nowhere-to-be-found"}}
    with pytest.raises(CommandError, match="nowhere-to-be-found of the context cloud"):
        reached(config(home / "config", "cloud", user))
