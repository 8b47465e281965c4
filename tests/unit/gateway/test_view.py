"""What the gateway makes of what it sees: models, ready pods, keys; and of what it does not see any more."""

import hashlib
import logging
from base64 import b64encode
from typing import Any

import pytest

from moorage_common.labels import MODEL_LABEL
from moorage_gateway.alias import Alias, Aliases, Share
from moorage_gateway.hold import HoldLimits, Lobby
from moorage_gateway.keys import KEY_LABEL, Keys, KeysUncheckedError
from moorage_gateway.kube.resources import CONFIG_MAPS, ENDPOINT_SLICES, INFERENCE_MODELS, MODEL_ALIASES, SECRETS
from moorage_gateway.kube.watch_health import Watched
from moorage_gateway.prefix import PrefixSettings
from moorage_gateway.routing import ModelKey, Table
from moorage_gateway.templates import Templates
from moorage_gateway.view import KEPT_SECONDS, REFUSED_SECONDS, View, selectors, watched

CHAT = ModelKey("team-a", "chat")
PROMPTS = ModelKey("moorage-system", "prompts")


class Bed:
    def __init__(self, namespaces: tuple[str | None, ...] = (None,)) -> None:
        self.table = Table(Lobby(HoldLimits()))
        self.keys = Keys(lambda: 0.0)
        self.aliases = Aliases(self.table)
        self.templates = Templates()
        self.wanted = watched(namespaces, "keys", PROMPTS)
        self.view = View(self.table, self.keys, self.wanted, aliases=self.aliases, templates=self.templates)

    def addresses(self) -> list[tuple[str, int]]:
        model = self.table.get(CHAT)
        return [(endpoint.pool.host, endpoint.pool.port) for endpoint in model.backends] if model else []


def model(uid: str = "m1", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "team-a", "name": "chat", "uid": uid, "creationTimestamp": "2026-11-22T00:00:00Z"}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


def endpoint_slice(*endpoints: dict[str, Any], uid: str = "s1", port: str = "http") -> dict[str, Any]:
    metadata = {"namespace": "team-a", "name": f"chat-{uid}", "uid": uid, "labels": {MODEL_LABEL: "chat"}}
    return {"metadata": metadata, "endpoints": list(endpoints), "ports": [{"name": port, "port": 8000}]}


def at(address: str, ready: bool | None = True) -> dict[str, Any]:
    return {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}


async def test_ready_pods_of_all_slices_are_a_models_backends() -> None:
    bed = Bed()
    bed.view.event(
        ENDPOINT_SLICES, None, endpoint_slice(at("10.0.0.1"), at("10.0.0.2", ready=False), at("10.0.0.3", None))
    )
    bed.view.event(INFERENCE_MODELS, None, model())
    bed.view.event(ENDPOINT_SLICES, "ADDED", endpoint_slice(at("10.0.0.4"), uid="s2"))
    assert bed.addresses() == [("10.0.0.1", 8000), ("10.0.0.3", 8000), ("10.0.0.4", 8000)]

    bed.view.event(ENDPOINT_SLICES, "MODIFIED", endpoint_slice(at("10.0.0.1", ready=False)))
    assert bed.addresses() == [("10.0.0.4", 8000)]
    bed.view.event(ENDPOINT_SLICES, "DELETED", endpoint_slice(uid="s2"))
    assert bed.addresses() == []


async def test_only_the_port_of_the_runtime_counts() -> None:
    bed = Bed()
    bed.view.event(INFERENCE_MODELS, None, model())
    bed.view.event(ENDPOINT_SLICES, None, endpoint_slice(at("10.0.0.1"), port="debug"))
    assert bed.addresses() == []


async def test_what_a_list_does_not_have_any_more_has_gone() -> None:
    bed = Bed()
    bed.view.event(INFERENCE_MODELS, None, model())
    bed.view.event(ENDPOINT_SLICES, None, endpoint_slice(at("10.0.0.1")))
    bed.view.listed(Watched(ENDPOINT_SLICES, None), set())
    assert bed.addresses() == []
    bed.view.listed(Watched(INFERENCE_MODELS, None), set())
    assert bed.table.get(CHAT) is None


async def test_a_list_of_one_namespace_says_nothing_of_others() -> None:
    bed = Bed(("team-a", "team-b"))
    bed.view.event(INFERENCE_MODELS, None, model())
    bed.view.listed(Watched(INFERENCE_MODELS, "team-b"), set())
    assert bed.table.get(CHAT) is not None


async def test_a_model_made_again_stays_when_its_predecessor_is_missed() -> None:
    bed = Bed()
    bed.view.event(INFERENCE_MODELS, None, model("old"))
    bed.view.event(INFERENCE_MODELS, None, model("new"))
    bed.view.listed(Watched(INFERENCE_MODELS, None), {"new"})
    assert bed.table.get(CHAT) is not None


async def test_a_served_name_that_changes_is_the_only_one() -> None:
    bed = Bed()
    bed.view.event(INFERENCE_MODELS, None, model(servedName="one"))
    bed.view.event(INFERENCE_MODELS, "MODIFIED", model(servedName="two"))
    assert not bed.table.named("one")
    assert [found.key for found in bed.table.named("two")] == [CHAT]


@pytest.mark.parametrize(
    ("routing", "settings"),
    [
        (None, None),
        ({"strategy": "LeastInFlight"}, None),
        ({"strategy": "PrefixHash"}, PrefixSettings(256, 125)),
        ({"strategy": "PrefixHash", "prefixLength": 64, "loadFactorPercent": 200}, PrefixSettings(64, 200)),
        ({"strategy": "OfANewerVersion"}, None),
    ],
)
async def test_how_a_model_chooses_pods_is_what_its_spec_says(
    routing: dict[str, Any] | None, settings: PrefixSettings | None
) -> None:
    bed = Bed()
    bed.view.event(INFERENCE_MODELS, None, model(routing=routing))
    found = bed.table.get(CHAT)
    assert found is not None
    assert (found.prefixes.settings if found.prefixes else None) == settings


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {"queue": {"position": 3, "of": 5, "waitingFor": "2 nvidia.com/gpu"}},
            "waiting for 2 nvidia.com/gpu, position 3 of 5",
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "Stopped", "message": "suspended"}]},
            "Stopped: suspended",
        ),
        ({"conditions": [{"type": "Ready", "status": "True", "reason": "Serving", "message": "x"}]}, ""),
        ({}, ""),
    ],
)
async def test_why_a_model_does_not_answer_is_what_its_status_says(status: dict[str, Any], why: str) -> None:
    bed = Bed()
    bed.view.event(INFERENCE_MODELS, None, model(status=status))
    found = bed.table.get(CHAT)
    assert found is not None
    assert found.why_not == why


READY: dict[str, Any] = {"type": "Ready", "status": "False", "reason": "Starting", "message": "x"}


@pytest.mark.parametrize(
    ("spec", "status", "waits"),
    [
        ({}, {}, True),
        ({}, {"phase": "Starting"}, True),
        ({}, {"phase": "WaitingForResources", "conditions": [READY | {"reason": "WaitingForGPU"}]}, True),
        ({}, {"phase": "WaitingForResources", "conditions": [READY | {"reason": "NoSuchResource"}]}, False),
        ({}, {"phase": "Running"}, True),
        ({}, {"phase": "Failed"}, False),
        ({}, {"phase": "Stopping"}, False),
        ({}, {"phase": "Stopped"}, False),
        ({}, {"phase": "Failed", "observedGeneration": 0}, True),
        ({"suspend": True}, {"phase": "Running"}, False),
        ({"replicas": 0}, {}, False),
        ({"scaling": {"minReplicas": 0}}, {"phase": "Sleeping"}, True),
        ({"scaling": {"minReplicas": 0}, "suspend": True}, {"phase": "Sleeping"}, False),
    ],
)
async def test_a_request_may_wait_for_what_is_on_its_way_or_wakes(
    spec: dict[str, Any], status: dict[str, Any], waits: bool
) -> None:
    bed = Bed()
    live = model(status={"observedGeneration": 1, **status})
    live["metadata"]["generation"] = 1
    live["spec"] |= spec
    bed.view.event(INFERENCE_MODELS, None, live)
    found = bed.table.get(CHAT)
    assert found is not None
    assert found.room is not None
    assert found.room.state.waits == waits
    assert found.room.state.scaled == ("scaling" in spec and not spec.get("suspend"))


@pytest.mark.parametrize(
    ("spec", "takes"),
    [({}, 4), ({"maxConcurrency": 7}, 7), ({"task": "embed", "framework": "transformers"}, 256), ({"task": "new"}, 0)],
)
async def test_how_many_requests_a_pod_takes(spec: dict[str, Any], takes: int) -> None:
    bed = Bed()
    live = model()
    live["spec"] |= spec
    bed.view.event(INFERENCE_MODELS, None, live)
    found = bed.table.get(CHAT)
    assert found is not None
    assert found.room is not None
    assert found.room.state.takes == takes


def secret(identity: str = "app", **entries: str) -> dict[str, Any]:
    data = {name: b64encode(value.encode()).decode() for name, value in entries.items()}
    metadata = {"namespace": "keys", "name": identity, "uid": f"of-{identity}", "labels": {KEY_LABEL: identity}}
    return {"metadata": metadata, "data": data}


async def test_keys_come_change_and_go_and_a_broken_one_is_told_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bed, digest = Bed(), hashlib.sha256(b"s3cret").hexdigest()
    bed.view.event(SECRETS, None, secret(sha256=digest, models="*/*"))
    assert bed.keys.caller(b"mrg_app_s3cret") is not None
    with caplog.at_level(logging.WARNING):
        bed.view.event(SECRETS, "MODIFIED", secret(sha256=digest, priority="99"))
    assert bed.keys.caller(b"mrg_app_s3cret") is None
    assert "priority is 99" in caplog.records[-1].__dict__["why"]
    bed.view.event(SECRETS, "MODIFIED", secret(sha256=digest))
    assert bed.keys.caller(b"mrg_app_s3cret") is not None
    bed.view.event(SECRETS, "DELETED", secret())
    assert bed.keys.caller(b"mrg_app_s3cret") is None


async def test_it_is_complete_when_everything_was_listed_once() -> None:
    bed = Bed()
    for one in bed.wanted:
        assert not bed.view.complete
        assert one in bed.view.unlisted
        bed.view.listed(one, set())
    assert bed.view.complete


def alias(uid: str = "a1", **weights: int) -> dict[str, Any]:
    metadata = {"namespace": "team-a", "name": "prod", "uid": uid, "creationTimestamp": "2026-11-22T00:00:00Z"}
    return {"metadata": metadata, "spec": {"models": [{"name": name, "weight": weights[name]} for name in weights]}}


async def test_aliases_come_change_and_go() -> None:
    bed, prod = Bed(), ModelKey("team-a", "prod")
    bed.view.event(MODEL_ALIASES, None, alias(chat=90, other=10))
    shares = (Share(CHAT, 90), Share(ModelKey("team-a", "other"), 10))
    assert list(bed.aliases.named("prod")) == list(bed.aliases.named(str(prod))) == [Alias(prod, shares, 1795305600)]
    bed.view.event(MODEL_ALIASES, "MODIFIED", alias(chat=1))
    assert [one.shares for one in bed.aliases] == [(Share(CHAT, 1),)]
    # One of the same name was made before the old one was missed.
    bed.view.event(MODEL_ALIASES, "ADDED", alias("a2", chat=2))
    bed.view.listed(Watched(MODEL_ALIASES, None), {"a2"})
    assert [one.shares for one in bed.aliases] == [(Share(CHAT, 2),)]
    bed.view.event(MODEL_ALIASES, "DELETED", alias("a2", chat=2))
    assert not list(bed.aliases)
    assert not bed.aliases.named("prod")


async def test_the_templates_are_those_of_one_config_map_and_go_with_it() -> None:
    def prompts(**data: str) -> dict[str, Any]:
        return {"metadata": {"namespace": PROMPTS.namespace, "name": PROMPTS.name, "uid": "c1"}, "data": data}

    bed = Bed()
    assert (CONFIG_MAPS, PROMPTS.namespace) in bed.wanted
    assert selectors(PROMPTS)[CONFIG_MAPS] == {"fieldSelector": "metadata.name=prompts"}
    bed.view.event(CONFIG_MAPS, None, prompts(qa="Answer: {{ inputs }}"))
    assert bed.templates.scenarios == ["qa"]
    bed.view.event(CONFIG_MAPS, "MODIFIED", prompts(own="{{ inputs }}!"))
    assert bed.templates.scenarios == ["own"]
    bed.view.listed(Watched(CONFIG_MAPS, PROMPTS.namespace), set())
    assert bed.templates.scenarios == []


async def test_cluster_01_a_namespace_that_is_refused_for_a_while_does_not_keep_the_others_from_being_served() -> None:
    bed = Bed(("team-a", "team-b"))
    lost = [one for one in bed.wanted if one.namespace == "team-b"]
    for one in bed.wanted:
        if one not in lost:
            bed.view.listed(one, set())
    for one in lost:
        # A refusal of a moment, while the API server starts, must not make models look as if they were not there.
        bed.view.refused(one, REFUSED_SECONDS - 1)
    assert bed.view.unlisted == set(lost)
    assert not bed.view.complete
    for one in lost:
        bed.view.refused(one, REFUSED_SECONDS)
    assert bed.view.complete


async def test_where_everything_is_refused_nothing_is_served() -> None:
    bed = Bed()
    for one in bed.wanted:
        bed.view.refused(one, REFUSED_SECONDS)
    assert bed.view.blind
    assert not bed.view.complete
    # One of them is listed: the gateway sees something.
    bed.view.listed(bed.wanted[0], set())
    assert bed.view.complete


async def test_cluster_01_models_of_a_namespace_that_is_refused_are_kept_for_a_while() -> None:
    bed = Bed(("team-a", "team-b"))
    models, slices = Watched(INFERENCE_MODELS, "team-a"), Watched(ENDPOINT_SLICES, "team-a")
    bed.view.event(INFERENCE_MODELS, None, model())
    bed.view.event(MODEL_ALIASES, None, alias(chat=1))
    bed.view.event(ENDPOINT_SLICES, None, endpoint_slice(at("10.0.0.1")))
    bed.view.refused(models, KEPT_SECONDS - 1)
    bed.view.refused(slices, KEPT_SECONDS - 1)
    assert bed.addresses() == [("10.0.0.1", 8000)]

    # That another namespace is refused is nothing to them.
    bed.view.refused(Watched(INFERENCE_MODELS, "team-b"), KEPT_SECONDS)
    bed.view.refused(slices, KEPT_SECONDS)
    assert bed.addresses() == []
    known = bed.table.get(CHAT)
    assert known is not None
    assert known.room is not None
    bed.view.refused(models, KEPT_SECONDS)
    bed.view.refused(Watched(MODEL_ALIASES, "team-a"), KEPT_SECONDS)
    assert bed.table.get(CHAT) is None
    assert not list(bed.aliases)
    assert known.room.state.why_not == "the gateway cannot watch its namespace"

    bed.view.event(INFERENCE_MODELS, None, model())
    bed.view.listed(models, {"m1"})
    bed.view.event(ENDPOINT_SLICES, None, endpoint_slice(at("10.0.0.2")))
    bed.view.listed(slices, {"s1"})
    assert bed.addresses() == [("10.0.0.2", 8000)]


async def test_cluster_02_keys_are_not_taken_while_their_namespace_is_refused() -> None:
    bed = Bed()
    watched_keys = Watched(SECRETS, "keys")
    digest = hashlib.sha256(b"s3cret").hexdigest()
    bed.view.event(SECRETS, None, secret(sha256=digest))
    bed.view.event(SECRETS, None, secret("revoked", sha256=digest))
    bed.view.listed(watched_keys, {"of-app", "of-revoked"})
    bed.view.refused(watched_keys, REFUSED_SECONDS - 1)
    assert bed.keys.caller(b"mrg_app_s3cret") is not None
    bed.view.refused(watched_keys, REFUSED_SECONDS)
    for token in (b"mrg_app_s3cret", b"mrg_nobody_s3cret"):
        with pytest.raises(KeysUncheckedError):
            bed.keys.caller(token)

    # What is listed is not believed before the list is complete: the other one may have gone.
    bed.view.event(SECRETS, None, secret(sha256=digest))
    assert not bed.keys.checked
    bed.view.listed(watched_keys, {"of-app"})
    assert bed.keys.caller(b"mrg_app_s3cret") is not None
    assert bed.keys.caller(b"mrg_revoked_s3cret") is None


async def test_templates_stay_while_their_namespace_is_refused() -> None:
    bed = Bed()
    metadata = {"namespace": PROMPTS.namespace, "name": PROMPTS.name, "uid": "c1"}
    bed.view.event(CONFIG_MAPS, None, {"metadata": metadata, "data": {"qa": "{{ inputs }}"}})
    bed.view.refused(Watched(CONFIG_MAPS, PROMPTS.namespace), 10 * KEPT_SECONDS)
    assert bed.templates.scenarios == ["qa"]
