"""What build_all plans, builds, and clears away; no engine runs here."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hack.images import api, base, catalog
from hack.images.api import superseded
from hack.images.engine import Recipe
from hack.images.errors import ImageError
from hack.images.inputs import Input


@dataclass
class FakeSpec:
    """An image whose inputs can change under the builder's hands."""

    name: str = "thing"
    dockerfile: Path = base.DOCKERFILE
    target: str = ""
    needs_base: bool = True
    contents: list[bytes] = field(default_factory=lambda: [b"1"])

    def reference(self, digest: str) -> str:
        return f"localhost/thing:{digest}"

    def inputs(self) -> list[Input]:
        return [("source", self.contents[0])]

    def prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if len(self.contents) > 1:
            self.contents.pop(0)


@dataclass
class FakeEngine:
    """Records what it is asked."""

    built: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    def open(self) -> None: ...

    def has(self, reference: str) -> bool:
        return "base" in reference

    def build(self, recipe: Recipe, reference: str) -> None:
        self.built.append((reference, dict(recipe.arguments)))

    def save(self, reference: str, archive: Path) -> None:
        archive.write_text(reference)

    def keep_only(self, references: set[str]) -> None:
        self.kept = references


@dataclass
class World:
    spec: FakeSpec
    engine: FakeEngine


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(FakeSpec(), FakeEngine())
    monkeypatch.setattr(api, "SPECS", {"thing": made.spec})
    monkeypatch.setattr(api, "NAMES", ("thing",))
    monkeypatch.setattr(api, "images_root", lambda: tmp_path / "images")
    monkeypatch.setattr(api, "Buildah", lambda storage: made.engine)
    monkeypatch.setattr(api, "docker_answers", lambda: False)
    monkeypatch.setattr(api, "require_buildah", lambda: None)
    monkeypatch.setattr(api, "_context", lambda spec: tmp_path / "dist" / spec.name)
    return made


def test_an_image_is_built_once_until_its_inputs_change(world: World) -> None:
    first = api.build_all(["thing"])["thing"]
    assert api.build_all(["thing"])["thing"] == first
    assert len(world.engine.built) == 1
    world.spec.contents = [b"2"]
    second = api.build_all(["thing"])["thing"]
    assert second.reference != first.reference
    assert second.archive.read_text() == second.reference
    assert len(world.engine.built) == 2


def test_it_stands_on_our_base(world: World) -> None:
    api.build_all(["thing"])
    [(_, arguments)] = world.engine.built
    assert arguments["BASE_IMAGE"].startswith("localhost/moorage/base:")
    assert arguments["BASE_IMAGE"] in world.engine.kept


def test_a_file_saved_during_the_build_does_not_end_in_an_archive_of_the_wrong_name(world: World) -> None:
    world.spec.contents = [b"before", b"after"]
    image = api.build_all(["thing"])["thing"]
    assert image == api.plan(["thing"], docker=False)["thing"]
    assert [reference for reference, _ in world.engine.built] == [image.reference]


def test_sources_that_never_rest_are_an_error(world: World) -> None:
    world.spec.contents = [bytes([number]) for number in range(40)]
    with pytest.raises(ImageError, match="keep changing"):
        api.build_all(["thing"])
    assert world.engine.built == []


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    known = "no image nonsense; there are operator, gateway, runtime, model, runtime-transformers"
    with pytest.raises(ImageError, match=known):
        api.plan(["nonsense"], docker=False)


def test_of_an_image_s_archives_the_newest_two_stay() -> None:
    archives = {Path("new"): 3.0, Path("old"): 1.0, Path("middle"): 2.0}
    assert superseded(archives, Path("new")) == [Path("old")]
    # Coming back to an older state keeps that one, whatever its age.
    assert superseded(archives, Path("old")) == [Path("middle")]


def test_the_model_keeps_its_name_and_the_others_are_named_by_their_inputs() -> None:
    assert catalog.MODEL.reference("abc") == "localhost/models/smollm2:135m-q4"
    assert catalog.OPERATOR.reference("abc") == "localhost/moorage/operator:dev-abc"
    assert catalog.RUNTIME.reference("abc") == "localhost/moorage/runtime-llamacpp:dev-abc"


def test_an_image_depends_on_its_own_package_and_the_shared_one_only() -> None:
    names = {name for name, _ in catalog.OPERATOR.inputs()}
    assert {"operator/Dockerfile", "operator/pyproject.toml", "common/pyproject.toml", "requirements"} <= names
    assert not any(name.startswith("runtime/") for name in names)


def test_each_engine_s_image_is_a_target_of_the_runtime_s_dockerfile() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (catalog.ROOT / "runtime" / "Dockerfile").read_text(), re.MULTILINE)
    runtimes = [spec for spec in catalog.SPECS.values() if spec.name.startswith("runtime")]
    assert sorted(spec.target for spec in runtimes) == sorted(set(stages) - {"engine"})


def test_a_demo_builds_no_engine_of_gigabytes() -> None:
    assert api.NAMES == ("operator", "gateway", "runtime", "model")


def test_what_stands_on_vllm_s_own_image_brings_no_packages_but_ours() -> None:
    wanted = catalog.SPECS["runtime-vllm"]
    assert dict(wanted.inputs())["requirements"] == b""
    assert not wanted.needs_base


def test_an_engine_s_image_has_the_pins_that_its_tests_run_with() -> None:
    pins = dict(catalog.SPECS["runtime-transformers"].inputs())["requirements"].decode()
    assert pins == (catalog.PINS / "transformers.txt").read_text()
    assert "boto3==" in pins, "the same image fetches the model"
