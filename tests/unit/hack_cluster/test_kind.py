"""What the kind provider would run. It cannot run here: these tests are all that stands behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.cluster import kind, providers
from hack.cluster.host.layout import Layout
from hack.cluster.host.provider import HostProvider
from hack.cluster.options import ClusterOptions

BINARY = Path("/bin/kind")


def test_create_never_touches_the_users_kubeconfig(layout: Layout) -> None:
    command = kind.create_command(BINARY, layout)
    assert command[:5] == ["/bin/kind", "create", "cluster", "--name", "moorage-test"]
    assert command[command.index("--kubeconfig") + 1] == str(layout.kubeconfig)
    assert command[command.index("--config") + 1] == str(layout.config("kind.json"))


def test_delete_and_load_name_the_same_cluster(layout: Layout) -> None:
    assert "moorage-test" in kind.delete_command(BINARY, layout)
    command = kind.load_command(BINARY, "test", Path("/x.tar"))
    assert command == ["/bin/kind", "load", "image-archive", "/x.tar", "--name", "moorage-test"]


def test_the_node_image_is_pinned_by_digest(layout: Layout) -> None:
    (node,) = kind.kind_config(layout)["nodes"]
    assert node["image"].startswith("kindest/node:v1.36.")
    assert "@sha256:" in node["image"]


def test_the_audit_log_is_written_where_the_handle_reads_it(layout: Layout) -> None:
    config = kind.kind_config(layout)
    (node,) = config["nodes"]
    mounts = {mount["containerPath"]: mount["hostPath"] for mount in node["extraMounts"]}
    patch = json.loads(config["kubeadmConfigPatches"][0])
    arguments = {argument["name"]: argument["value"] for argument in patch["apiServer"]["extraArgs"]}
    inside = Path(arguments["audit-log-path"])
    assert Path(mounts[str(inside.parent)]) / inside.name == layout.audit_log
    assert arguments["audit-policy-file"] in mounts
    volumes = {volume["hostPath"] for volume in patch["apiServer"]["extraVolumes"]}
    assert volumes == set(mounts)


def test_kind_restarts_crashed_containers_as_soon_as_the_host_provider(layout: Layout) -> None:
    patch = json.loads(kind.kind_config(layout)["kubeadmConfigPatches"][1])
    assert patch["crashLoopBackOff"] == {"maxContainerRestartPeriod": "10s"}


@pytest.mark.parametrize(("answers", "expected"), [(True, "kind"), (False, "host")])
def test_auto_takes_kind_where_docker_answers(answers: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "docker_answers", lambda: answers)
    assert providers.provider_for("auto").name == expected


def test_kind_says_that_the_engine_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "docker_answers", lambda: False)
    monkeypatch.setattr(kind, "missing_go", lambda groups: [])
    (missing,) = kind.KindProvider().missing(ClusterOptions())
    assert "Docker engine" in missing.what


def test_a_cluster_belongs_to_the_provider_that_made_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert isinstance(providers.provider_of("test"), HostProvider)
    config = Layout.of("test").config("kind.json")
    config.parent.mkdir(parents=True)
    config.touch()
    assert isinstance(providers.provider_of("test"), kind.KindProvider)
