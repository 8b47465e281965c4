"""Which cluster the command line takes, and as whom: what kubectl would."""

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from moorage_cli.kubeconfig import reach
from moorage_common.kube.credentials import CredentialsError


def config(path: Path, name: str, user: dict[str, Any], **more: Any) -> str:
    """A kubeconfig with one context."""
    content = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **more}}],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}.example"}}],
        "users": [{"name": name, "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_option_the_variable_the_home_in_this_order(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    config(tmp_path / ".kube" / "config", "home", {"token": "h"})
    first = config(tmp_path / "first", "first", {"token": "f"}, namespace="team-a")
    second = config(tmp_path / "second", "second", {"token": "s"})
    home = {"HOME": str(tmp_path)}
    assert reach(home, None, None)[0].token == "h"
    both = {**home, "KUBECONFIG": f"{first}:/nonexistent:{second}"}
    connection, namespace = reach(both, None, None)
    assert (connection.server, connection.token, namespace) == ("http://first.example", "f", "team-a")
    assert reach(both, None, "second")[0].token == "s"
    assert reach(both, second, None) == (reach(both, None, "second")[0], "default")
    with pytest.raises(CredentialsError, match="third"):
        reach(both, None, "third")


def test_without_any_it_is_said_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="--kubeconfig"):
        reach({"HOME": str(tmp_path)}, None, None)
    with pytest.raises(CredentialsError, match="/nonexistent"):
        reach({}, "/nonexistent", None)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_gives_the_token(tmp_path: Path) -> None:
    command = program(
        tmp_path / "login",
        'case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 1;; esac\n'
        'echo "{\\"status\\": {\\"token\\": \\"$1-$WHO\\"}}"',
    )
    asked = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command,
        "args": ["for"],
        "env": [{"name": "WHO", "value": "me"}],
        "provideClusterInfo": True,
    }
    path = config(tmp_path / "config", "cloud", {"exec": asked})
    assert reach({"PATH": "/bin"}, path, None)[0].token == "for-me"


@pytest.mark.parametrize("text", ["exit 3", "echo nothing", "echo '{}'"])
def test_a_program_that_gives_none_is_named_with_its_hint(tmp_path: Path, text: str) -> None:
    command = program(tmp_path / "login", text)
    asked = {"command": command, "installHint": "log in first"}
    path = config(tmp_path / "config", "cloud", {"exec": asked})
    with pytest.raises(CredentialsError, match="log in first") as error:
        reach({}, path, None)
    assert command in str(error.value)
