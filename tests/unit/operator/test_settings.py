"""The settings: their names in the environment, their defaults, and what is refused."""

import pytest
from pydantic import ValidationError

from moorage_operator.settings import Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set, whatever the machine has."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"MOORAGE_{field.upper()}", raising=False)


def test_nothing_set_serves_all_namespaces_without_images() -> None:
    settings = Settings()
    assert settings.watch_namespaces == ()
    assert settings.images == {}
    assert (settings.workers, settings.facts, settings.health_port, settings.log_level) == (8, True, 8080, "INFO")
    assert settings.desired.priority_class_prefix == "moorage-"


@pytest.mark.parametrize(
    ("text", "namespaces"),
    [
        ("", ()),
        (" , ", ()),
        ("team-a", ("team-a",)),
        ("team-a,team-b", ("team-a", "team-b")),
        (" team-a , team-b ,", ("team-a", "team-b")),
    ],
)
def test_namespaces_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, text: str, namespaces: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MOORAGE_WATCH_NAMESPACES", text)
    assert Settings().watch_namespaces == namespaces


def test_images_are_json_and_reach_the_builders_of_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_IMAGES", '{"llamacpp/cpu": "runtime:1"}')
    monkeypatch.setenv("MOORAGE_IMAGE_PULL_POLICY", "Never")
    monkeypatch.setenv("MOORAGE_PRIORITY_CLASS_PREFIX", "ours-")
    config = Settings().desired
    assert config.images == {"llamacpp/cpu": "runtime:1"}
    assert (config.image_pull_policy, config.priority_class_prefix) == ("Never", "ours-")


def test_cluster_05_06_what_a_cluster_wants_of_pods_reaches_the_builders_of_manifests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unset = Settings().desired
    assert (unset.image_pull_secrets, unset.runtime_classes, unset.set_user) == ((), {}, True)
    monkeypatch.setenv("MOORAGE_IMAGE_PULL_SECRETS", "registry, hub")
    monkeypatch.setenv("MOORAGE_RUNTIME_CLASSES", '{"gpu": "nvidia"}')
    monkeypatch.setenv("MOORAGE_SET_USER", "false")
    config = Settings().desired
    assert (config.image_pull_secrets, config.runtime_classes) == (("registry", "hub"), {"gpu": "nvidia"})
    assert not config.set_user


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNTIME_CLASSES", '{"tpu": "google"}'),
        ("IMAGE_PULL_POLICY", "Sometimes"),
        ("WORKERS", "0"),
        ("WORKERS", "65"),
        ("HEALTH_PORT", "70000"),
        ("LOG_LEVEL", "LOUD"),
        ("FACTS", "perhaps"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MOORAGE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_images_that_are_no_json_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_IMAGES", "llamacpp/cpu=runtime:1")
    with pytest.raises(Exception, match="images"):
        Settings()


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().workers = 3  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_can_be_logged_as_json() -> None:
    assert Settings().model_dump(mode="json")["watch_namespaces"] == []
