"""Where the operator finds the API server and its credentials, and that it notices new ones."""

import os
import stat
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from moorage_operator.cluster import connection
from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.connection import CredentialsError, authorization, connect
from moorage_operator.cluster.errors import UnavailableError
from moorage_operator.cluster.kinds import PODS
from moorage_operator.handlers.requests import ListsAndWatches, session
from tests.unit.operator.api_server import kubeconfig

PLUGIN = """#!/bin/sh
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": "{token}"}}}}'
"""


@pytest.fixture(autouse=True)
def outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No service account; credentials are looked at again with every request."""
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", Path("/nonexistent"))
    monkeypatch.setattr(connection, "FRESH_SECONDS", 0.0)


async def header(monkeypatch: pytest.MonkeyPatch, *files: Path) -> dict[str, str]:
    """What requests prove themselves with."""
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(str(file) for file in files))
    api = await connect()
    try:
        return await authorization(api)
    finally:
        await api.close()


async def test_a_token_of_a_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", token="one")
    assert await header(monkeypatch, config) == {"Authorization": "Bearer one"}


async def test_a_client_certificate_needs_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await header(monkeypatch, kubeconfig(tmp_path / "config", "http://127.0.0.1:1")) == {}


async def test_several_kubeconfigs_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").write_text("apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n")
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", token="one")
    assert await header(monkeypatch, tmp_path / "empty", config) == {"Authorization": "Bearer one"}


async def test_a_plugin_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(PLUGIN.format(token="of-a-plugin"))
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", exec=command)
    assert await header(monkeypatch, config) == {"Authorization": "Bearer of-a-plugin"}


async def test_fault_11_a_token_that_is_rotated_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", token="one")
    monkeypatch.setenv("KUBECONFIG", str(config))
    api = await connect()
    try:
        kubeconfig(config, "http://127.0.0.1:1", token="two")
        os.utime(config, (1, 1))
        assert await authorization(api) == {"Authorization": "Bearer two"}
    finally:
        await api.close()


@pytest.mark.parametrize("content", ["", "clusters: {", "[]", "current-context: nowhere\ncontexts: []\n"])
async def test_a_kubeconfig_that_cannot_be_used_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(CredentialsError, match=str(tmp_path / "config")):
        await header(monkeypatch, tmp_path / "config")


async def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CredentialsError, match="no service account is mounted"):
        await header(monkeypatch, tmp_path / "none")


async def test_fault_11_a_kubeconfig_that_is_broken_for_a_while_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", token="one")
    monkeypatch.setenv("KUBECONFIG", str(config))
    api = await connect()
    try:
        config.write_text("clusters: {")
        os.utime(config, (1, 1))
        with pytest.raises(UnavailableError, match="cannot be renewed"):
            await Kube(api).get(PODS, "team-a", "tiny-1")
        os.utime(config, (2, 2))
        lists = ListsAndWatches((), Watches(()), cast(Any, None))
        async with session(api, lists).aiohttp_session as logged_in:
            with pytest.raises(aiohttp.ClientConnectionError, match="cannot be renewed"):
                await logged_in.get("http://127.0.0.1:1/api")
        kubeconfig(config, "http://127.0.0.1:1", token="two")
        os.utime(config, (3, 3))
        assert await authorization(api) == {"Authorization": "Bearer two"}
    finally:
        await api.close()
