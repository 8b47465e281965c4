"""`kubectl moorage` with the real kubectl: a backup that is made, lost and restored, and API keys."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster.api import Cluster
from moorage_gateway.keys import PREFIX, Keys, read_key
from tests.support.api import Api
from tests.support.manage import token_of
from tests.support.models import alias, model
from tests.support.operator import KEYS
from tests.support.waiting import eventually

PLUGIN_API = "client.authentication.k8s.io/v1"

Plugin = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plugin(cluster: Cluster, tmp_path: Path) -> Plugin:
    """Runs `kubectl moorage …` as somebody does who has installed it."""
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "KUBECONFIG": str(cluster.kubeconfig),
        "HOME": str(tmp_path),
    }

    def run(*arguments: str, stdin: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(cluster.kubectl), "moorage", *arguments],
            env={**environment, **more},
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )

    return run


def rich(name: str) -> dict[str, Any]:
    """A model with about everything that a person may write."""
    made = model(
        name,
        displayName="Tiny: a “model” of 100 %",
        description="Line one\nline two: yes",
        quantization="q4_k_m",
        gpu={"count": 2, "resourceName": "nvidia.com/gpu", "memory": "24Gi"},
        resources={"cpu": "500m", "memory": "1Gi"},
        priority=8,
        replicas=0,
        contextLength=2048,
        parameters={"temperature": 0.7, "topP": 0.9},
        llamacpp={"threads": 4},
        extraArgs=["--flash-attn=on"],
        env=[{"name": "LOG_LEVEL", "value": "DEBUG"}],
        nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H200"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
    )
    made["metadata"] |= {"labels": {"team": "a"}, "annotations": {"example.org/note": "true"}}
    return made


def wanted(api: Api, kind: str = "InferenceModel") -> dict[str, Any]:
    """What somebody has written of each model, or alias."""
    return {
        live["metadata"]["name"]: (
            live["spec"],
            live["metadata"].get("labels"),
            {
                name: text
                for name, text in live["metadata"].get("annotations", {}).items()
                if not name.startswith("kubectl")
            },
        )
        for live in api.find(kind)
    }


@pytest.mark.parametrize("to_folder", [True, False])
def test_a_backup_brings_back_all_that_was_lost(api: Api, plugin: Plugin, tmp_path: Path, to_folder: bool) -> None:
    for name in ("one", "two"):
        api.create(rich(name))
    api.create(model("plain"))
    api.create(alias("one", one=1, two=3))  # the name of a model
    before, aliases = wanted(api), wanted(api, "ModelAlias")
    where = str(tmp_path / "backup")
    done = plugin("export", "-n", api.namespace, *(["-o", where] if to_folder else []))
    assert (done.returncode, done.stderr) == (0, "3 models and 1 aliases exported\n")
    if not to_folder:
        Path(where).write_text(done.stdout)
    for name in before:
        api.delete("InferenceModel", name)
    api.delete("ModelAlias", "one")
    assert wanted(api) == wanted(api, "ModelAlias") == {}

    dry = plugin("import", where, "--dry-run")
    assert (dry.returncode, wanted(api)) == (0, {}), dry.stderr
    assert dry.stdout.count("created (dry run)") == 4

    restored = plugin("import", where)
    assert restored.returncode == 0, restored.stderr
    assert restored.stderr == "4 created\n"
    assert (wanted(api), wanted(api, "ModelAlias")) == (before, aliases)

    again = plugin("apply", where)
    assert (again.returncode, again.stderr) == (0, "4 unchanged\n")


def test_an_export_has_what_a_person_would_have_written(api: Api, plugin: Plugin) -> None:
    api.create(rich("tiny"))
    (document,) = yaml.safe_load_all(plugin("export", "-n", api.namespace).stdout)
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert document["metadata"] == {
        "name": "tiny",
        "namespace": api.namespace,
        "labels": {"team": "a"},
        "annotations": {"example.org/note": "true"},
    }


def test_an_export_of_all_namespaces_and_of_some_labels(api: Api, plugin: Plugin, tmp_path: Path) -> None:
    api.create(rich("labelled"))
    api.create(model("plain"))
    done = plugin("export", "-A", "-l", "team=a", "-o", str(tmp_path / "all"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all" / api.namespace / "labelled.yaml").is_file()
    assert not (tmp_path / "all" / api.namespace / "plain.yaml").exists()


def test_what_kubectl_get_gives_can_be_imported_too(api: Api, plugin: Plugin, cluster: Cluster) -> None:
    api.create(rich("tiny"))
    command = [
        str(cluster.kubectl),
        f"--kubeconfig={cluster.kubeconfig}",
        "-n",
        api.namespace,
        "get",
        "im",
        "-o",
        "yaml",
    ]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before = wanted(api)
    api.delete("InferenceModel", "tiny")
    assert plugin("import", "-", stdin=listed).returncode == 0
    assert wanted(api) == before


def test_an_import_says_what_was_refused_and_applies_the_rest(api: Api, plugin: Plugin) -> None:
    text = yaml.safe_dump_all([model("bad", priority=11), model("good"), {**model("odd"), "spec": {"x": 1}}])
    done = plugin("import", "-", "-n", api.namespace, stdin=text)
    assert done.returncode == 1
    assert "spec.priority" in done.stderr
    assert done.stderr.endswith("1 created, 2 failed\n")
    assert list(wanted(api)) == ["good"]


def test_a_field_of_somebody_else_is_taken_by_force_only(api: Api, plugin: Plugin) -> None:
    api.create(model("tiny", priority=3))
    text = yaml.safe_dump(model("tiny", priority=9))
    done = plugin("import", "-", "-n", api.namespace, stdin=text)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert plugin("import", "-", "-n", api.namespace, "--force", stdin=text).stderr == "1 configured\n"
    assert wanted(api)["tiny"][0]["priority"] == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML"),
        ("kind: Secret\napiVersion: v1", "a Secret of v1"),
        ("just text", "just text"),
        ("apiVersion: moorage.dev/v1alpha1\nkind: InferenceModel", "without a metadata.name"),
        (yaml.safe_dump_all([model("a"), model("a")]), "there twice"),
    ],
)
def test_a_file_that_is_none_of_models_is_named_and_nothing_is_done(
    api: Api, plugin: Plugin, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(model("good")))
    (tmp_path / "wrong.yaml").write_text(text)
    done = plugin("import", str(tmp_path), "-n", api.namespace)
    assert done.returncode == 1
    assert says in done.stderr
    assert wanted(api) == {}
    assert plugin("import", str(tmp_path / "nothing")).returncode == 1


@pytest.fixture
def no_keys(admin: Api) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The keys of this test; they are gone after it."""
    path = f"/api/v1/namespaces/{KEYS}/secrets"

    def found() -> list[dict[str, Any]]:
        selector = {"labelSelector": "moorage.dev/api-key in (cli-app, cli-manager)"}
        items: list[dict[str, Any]] = admin.request("GET", path, params=selector)["items"]
        return items

    yield found
    for secret in found():
        admin.request("DELETE", f"{path}/{secret['metadata']['name']}")


def test_a_key_is_made_listed_and_revoked(plugin: Plugin, no_keys: Callable[[], list[dict[str, Any]]]) -> None:
    made = plugin(
        *("key", "create", "cli-app", "--models", "team-a/*", "--models", "team-b/qwen", "--expires", "90d"),
        *("--requests-per-minute", "60", "--tokens-per-minute", "10000", "--priority", "8"),
    )
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.encode().startswith(PREFIX + b"cli-app_")
    assert key not in made.stderr
    (secret,) = no_keys()
    keys = Keys(lambda: 0.0)
    keys.put("uid", read_key(secret))
    holder = keys.caller(key.encode())
    assert holder
    assert (holder.requests_per_minute, holder.tokens_per_minute, holder.priority) == (60, 10000, 8)
    assert key.rpartition("_")[2] not in str(secret)

    listed = plugin("key", "list").stdout
    row = next(line for line in listed.splitlines() if line.startswith("cli-app"))
    for part in ("generate", "team-a/* team-b/qwen", "60", "10000", "valid"):
        assert part in row
    assert secret["data"]["sha256"] not in listed

    again = plugin("key", "create", "cli-app", "--models", "*/*")
    assert (again.returncode, again.stdout) == (1, "")
    assert "revoke it first" in again.stderr

    assert plugin("key", "revoke", "cli-app").returncode == 0
    assert no_keys() == []
    assert plugin("key", "revoke", "cli-app").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cli-app"], "--models is missing"),
        (["cli-app", "--models", "x"], "namespace/name"),
        (["cli-app", "--models", "*/*", "--expires", "tomorrow"], "expires is 'tomorrow'"),
        (["cli-app", "--models", "*/*", "--expires", "2020-01-01"], "--expires 2020-01-01 is in the past"),
        (["cli-app", "--models", "*/*", "--scopes", "root"], 'invalid scope "root": must be "generate" or "manage"'),
        (["cli-app", "--models", "*/*", "--priority", "11"], "priority is 11"),
        (["cli-app", "--models", "*/*", "--requests-per-minute", "0"], "requestsPerMinute is '0'"),
        (["CLI_APP", "--models", "*/*"], "must consist of lowercase letters"),
    ],
)
def test_a_key_that_the_gateway_would_not_take_is_not_made(
    plugin: Plugin, no_keys: Callable[[], list[dict[str, Any]]], arguments: list[str], says: str
) -> None:
    done = plugin("key", "create", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert no_keys() == []


def as_account(api: Api, cluster: Cluster, folder: Path) -> Path:
    """A kubeconfig of a ServiceAccount that may view this namespace's models; a plugin gives its token."""
    token = token_of(api, "somebody", "moorage-view")
    credential = {"apiVersion": PLUGIN_API, "kind": "ExecCredential", "status": {"token": token}}
    file = folder / "credential.json"
    file.write_text(json.dumps(credential))
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    user = {"exec": {"apiVersion": PLUGIN_API, "command": "cat", "args": [str(file)]}}
    config["users"] = [{"name": "cloud", "user": user}]
    context = {"cluster": config["clusters"][0]["name"], "user": "cloud", "namespace": api.namespace}
    config["contexts"] = [{"name": "cloud", "context": context}]
    config["current-context"] = "cloud"
    path = folder / "cloud.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_an_exec_plugin_says_who_it_is(api: Api, plugin: Plugin, cluster: Cluster, tmp_path: Path) -> None:
    api.create(model("tiny"))
    path = as_account(api, cluster, tmp_path)
    eventually(lambda: plugin("export", KUBECONFIG=str(path)).returncode == 0, "the role is known")
    done = plugin("export", KUBECONFIG=str(path))
    assert (done.returncode, done.stderr) == (0, "1 models and 0 aliases exported\n")
    refused = plugin("import", "-", KUBECONFIG=str(path), stdin=done.stdout)
    assert refused.returncode == 1
    assert "cannot patch resource" in refused.stderr
    (tmp_path / "credential.json").unlink()
    failed = plugin("export", KUBECONFIG=str(path))
    assert failed.returncode == 1
    assert "cat of the context cloud gave no credentials" in failed.stderr


def test_kubeconfigs_are_merged_as_kubectl_merges_them(
    api: Api, plugin: Plugin, cluster: Cluster, tmp_path: Path
) -> None:
    api.create(model("tiny"))
    path = as_account(api, cluster, tmp_path)
    both = f"{path}:{tmp_path / 'absent'}:{cluster.kubeconfig}"
    exported = "1 models and 0 aliases exported\n"
    eventually(lambda: plugin("export", KUBECONFIG=both).stderr == exported, "the first file's context is taken")
    admin = yaml.safe_load(cluster.kubeconfig.read_text())["current-context"]
    assert plugin("key", "list", "--context", admin, KUBECONFIG=both).returncode == 0
    assert "secrets is forbidden" in plugin("key", "list", KUBECONFIG=both).stderr
    unknown = plugin("export", "--context", "nosuch", KUBECONFIG=both)
    assert unknown.returncode == 1
    assert "nosuch" in unknown.stderr


def test_credentials_that_are_not_taken_are_said_to_be_so(plugin: Plugin, cluster: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "s3cret"}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    done = plugin("export", KUBECONFIG=str(tmp_path / "config"))
    assert done.returncode == 1
    assert "401 Unauthorized" in done.stderr
    assert "s3cret" not in done.stderr


def test_cluster_21_a_namespace_that_does_not_exist_is_an_error(plugin: Plugin) -> None:
    for command in (["key", "list"], ["key", "create", "cli-app", "--models", "*/*"], ["export"]):
        done = plugin(*command, "-n", "nosuch")
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert '"nosuch" not found' in done.stderr


def test_nothing_is_left_in_tmp(plugin: Plugin, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    assert plugin("key", "list", TMPDIR=str(folder)).returncode == 0
    assert list(folder.iterdir()) == []


def test_without_a_cluster_it_says_what_would_do(plugin: Plugin) -> None:
    done = plugin("key", "list", KUBECONFIG="")
    assert done.returncode == 1
    assert "--kubeconfig" in done.stderr
    missing = plugin("key", "list", "--kubeconfig", "/nonexistent")
    assert "/nonexistent" in missing.stderr
    assert plugin("what").returncode == 2
