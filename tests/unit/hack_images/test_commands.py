"""The commands that build images, as they would be run."""

import os
import shutil
from pathlib import Path

import pytest

from hack.images import base, context, engine
from hack.images.engine import Buildah, Docker, Recipe
from hack.images.errors import ImageError

BUILDAH = Buildah(Path("/cache/storage"))
DOCKERFILE, FOLDER = Path("operator/Dockerfile"), Path("dist/operator")


def test_buildah_uses_a_storage_of_its_own() -> None:
    command = BUILDAH.command("images")
    assert command[command.index("--root") + 1] == "/cache/storage/root"
    assert command[command.index("--runroot") + 1] == "/cache/storage/run"


def test_buildah_never_asks_a_registry_and_makes_layers_without_times() -> None:
    command = BUILDAH.build_command(
        Recipe(DOCKERFILE, FOLDER, arguments={"BASE_IMAGE": "localhost/base:1"}), "localhost/x:1"
    )
    assert "--pull-never" in command
    assert command[command.index("--timestamp") + 1] == "0"
    assert "--build-arg=BASE_IMAGE=localhost/base:1" in command
    assert command[-3:] == ["-t", "localhost/x:1", "dist/operator"]


def test_the_base_keeps_its_times_because_its_bytecode_was_made_for_them() -> None:
    assert "--timestamp" not in BUILDAH.build_command(Recipe(base.DOCKERFILE, FOLDER), "localhost/base:1")


@pytest.mark.parametrize("engine_of", [BUILDAH, Docker(("localhost/x",))])
def test_an_engine_s_image_is_a_stage_of_one_file(engine_of: Buildah | Docker) -> None:
    command = engine_of.build_command(Recipe(DOCKERFILE, FOLDER, "transformers"), "localhost/x:1")
    assert command[command.index("--target") + 1] == "transformers"


def test_the_archive_carries_the_image_s_name() -> None:
    assert BUILDAH.save_command("localhost/x:1", Path("/c/x.tar"))[-2:] == [
        "localhost/x:1",
        "oci-archive:/c/x.tar:localhost/x:1",
    ]


def test_docker_takes_the_base_that_the_dockerfile_names() -> None:
    command = Docker(("localhost/moorage/operator",)).build_command(Recipe(DOCKERFILE, FOLDER), "localhost/x:1")
    assert not any("BASE_IMAGE" in argument for argument in command)
    assert f"ARG BASE_IMAGE={engine.DOCKER_BASE}" in (Path(__file__).parents[3] / DOCKERFILE).read_text(
        encoding="utf-8"
    )


def test_wheels_are_locked_ready_made_and_for_the_python_of_the_image() -> None:
    command = context.install_command("uv", Path("r.txt"), Path("out"), "aarch64")
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)
    assert command[command.index("--python-version") + 1] == base.PYTHON_VERSION
    assert command[command.index("--python-platform") + 1].startswith("aarch64-manylinux")


def test_the_requirements_are_those_of_the_lock_file_and_of_one_package() -> None:
    command = context.export_command("uv", "moorage-runtime", ["llamacpp"])
    assert {"--frozen", "--no-dev", "--no-emit-workspace"} <= set(command)
    assert command[-4:] == ["--package", "moorage-runtime", "--extra", "llamacpp"]


def test_the_base_has_no_package_manager_of_python_and_no_documentation() -> None:
    command = base.debootstrap_command(Path("base.tar"), ['Acquire::http::Proxy "http://p:1"'])
    assert "--dpkgopt=path-exclude=/usr/share/man/*" in command
    assert '--aptopt=Acquire::http::Proxy "http://p:1"' in command
    assert command[-3:] == ["trixie", "base.tar", "-"]
    assert not any("pip" in argument for argument in command if argument.startswith("--include"))


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match=r"needs root, or a Docker engine"):
        engine.require_buildah()


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "buildah" else f"/usr/bin/{program}")
    with pytest.raises(ImageError, match=r"Missing: buildah\.\nRun `make deps`"):
        engine.require_buildah()
