"""The gateway with a real API server: aliases, how models choose pods, and the templates of /v1/generate."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from hack.cluster.api import Cluster
from tests.integration.test_gateway import grant, models, token
from tests.support.api import Api, ApiRefusedError, Object
from tests.support.gateway import SECRETS, GatewayProcess, gateway_process, make_key
from tests.support.models import alias, model
from tests.support.operator import NAMESPACE, ROOT, kubeconfig_of, kubectl
from tests.support.people import person
from tests.support.refusals import assert_says, refusal
from tests.support.waiting import eventually

TEMPLATES = "moorage-gateway-templates"
GATEWAY = f"system:serviceaccount:{NAMESPACE}:moorage-gateway"


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with the rights of the chart, and its ConfigMap."""
    folder = tmp_path_factory.mktemp("gateway")
    kubeconfig = kubeconfig_of(cluster, folder / "kubeconfig", "moorage-gateway")
    with gateway_process(kubeconfig, folder, MOORAGE_GATEWAY_TEMPLATES=f"{NAMESPACE}/{TEMPLATES}") as process:
        yield process


@pytest.fixture
def key(admin: Api, api: Api) -> Iterator[str]:
    """A key for the models of the test's namespace."""
    yield make_key(admin, api.namespace, models=f"{api.namespace}/*")
    admin.request("DELETE", f"{SECRETS}/key-{api.namespace}")


@pytest.fixture
def templates(admin: Api) -> Iterator[Api]:
    """The namespace of the ConfigMap, which is as the chart made it before and after."""
    system = admin.at(NAMESPACE)
    before = system.get("ConfigMap", TEMPLATES)
    assert before is not None
    yield system
    after = system.get("ConfigMap", TEMPLATES)
    assert after is not None
    removed: Object = dict.fromkeys(after.get("data", {}))
    system.patch("ConfigMap", TEMPLATES, {"data": removed | before["data"]})


def entries(gateway: GatewayProcess, credential: str) -> dict[str, Any]:
    """What is listed, by its id."""
    headers = {"Authorization": f"Bearer {credential}"}
    answer = httpx.get(f"{gateway.url}/v1/models", headers=headers, trust_env=False)
    return {entry["id"]: entry for entry in answer.json().get("data", ())}


def generate(gateway: GatewayProcess, credential: str, **fields: Any) -> httpx.Response:
    """Ask `/v1/generate`."""
    headers = {"Authorization": f"Bearer {credential}"}
    body = {"model_id": "tiny", "inputs": "Why?", **fields}
    return httpx.post(f"{gateway.url}/v1/generate", json=body, headers=headers, trust_env=False)


# -- aliases ----------------------------------------------------------------------------------------------------------


def test_an_alias_is_there_with_its_models_and_goes(gateway: GatewayProcess, api: Api, key: str) -> None:
    api.create(model("stable", suspend=True))
    api.create(model("next", suspend=True))
    api.create(alias("prod", stable=90, next=None, missing=5))
    name = f"{api.namespace}/prod"
    both = [f"{api.namespace}/stable", f"{api.namespace}/next"]
    eventually(lambda: entries(gateway, key).get(name, {}).get("models") == both, "it is listed", seconds=5)
    stored = api.get("ModelAlias", "prod")
    assert stored is not None
    assert stored["spec"]["models"][1] == {"name": "next", "weight": 100}

    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "prod", "messages": []}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
    # One of its models is chosen, and is stopped.
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_not_ready"

    api.patch("ModelAlias", "prod", {"spec": {"models": [{"name": "next", "weight": 1}]}})
    eventually(lambda: entries(gateway, key)[name]["models"] == both[1:], "it has changed", seconds=5)
    api.delete("ModelAlias", "prod")
    eventually(lambda: models(gateway, key) == sorted(both), "it is listed no more", seconds=5)


def test_an_alias_gives_a_token_no_right_to_its_models(gateway: GatewayProcess, cluster: Cluster, api: Api) -> None:
    api.create(model("stable"))
    api.create(model("next"))
    api.create(alias("prod", stable=90, next=10))
    theirs = token(cluster, api)
    assert models(gateway, theirs) == []
    grant(api, "stable")
    listed = [f"{api.namespace}/prod", f"{api.namespace}/stable"]
    eventually(lambda: models(gateway, theirs) == listed, "the role is seen", seconds=10)
    assert entries(gateway, theirs)[listed[0]]["models"] == [listed[1]]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (alias(), ("spec.models", "at least 1 items")),
        (alias(**{f"m{number}": 1 for number in range(6)}), ("spec.models", "at most 5 items")),
        (alias(stable=0, next=0), ("spec.models", "at least one model must have a weight above 0")),
        (alias(stable=-1), ("spec.models[0].weight", "greater than or equal to 0")),
        (alias(stable=1001), ("spec.models[0].weight", "less than or equal to 1000")),
        (alias(**{"other/stable": 1}), ("spec.models[0].name", "name of an InferenceModel of the same namespace")),
        (alias(**{"": 1}), ("spec.models[0].name",)),
        (alias("a.b", stable=1), ("metadata.name must be at most 40 characters",)),
        (alias() | {"spec": {"models": [{"name": "a"}, {"name": "a"}]}}, ("spec.models[1]", "Duplicate value")),
        (
            alias() | {"spec": {"models": [{"name": "a", "namespace": "b"}]}},
            ('unknown field "spec.models[0].namespace"',),
        ),
        (alias() | {"spec": {}}, ("spec.models",)),
    ],
)
def test_bad_input_an_alias_that_cannot_be_is_refused_by_the_api_server(
    api: Api, manifest: Object, words: tuple[str, ...]
) -> None:
    with pytest.raises(ApiRefusedError) as refused:
        api.create(manifest)
    assert refused.value.status in (400, 422)
    assert_says(str(refused.value), *words)


def test_kubectl_shows_what_an_alias_leads_to(cluster: Cluster, api: Api) -> None:
    api.create(alias("prod", stable=90, next=10))
    api.create(alias("solo", stable=None))
    told = [line.split() for line in kubectl(cluster, "-n", api.namespace, "get", "ima").splitlines()]
    assert told[0] == ["NAME", "MODEL-1", "WEIGHT-1", "MODEL-2", "WEIGHT-2", "AGE"]
    assert [line[:-1] for line in told[1:]] == [["prod", "stable", "90", "next", "10"], ["solo", "stable", "100"]]
    wide = kubectl(cluster, "-n", api.namespace, "get", "ima", "-o", "wide")
    assert wide.split()[5:7] == ["MODEL-3", "WEIGHT-3"]
    explained = kubectl(cluster, "explain", "modelalias.spec.models.weight")
    assert "0 gets none" in explained


def test_people_who_edit_models_edit_aliases_and_those_who_view_them_see_them(api: Api) -> None:
    person(api, "editor", "moorage-edit").create(alias("prod", stable=1))
    viewer = person(api, "viewer", "moorage-view")
    assert [found["metadata"]["name"] for found in viewer.find("ModelAlias")] == ["prod"]
    with pytest.raises(ApiRefusedError) as refused:
        viewer.create(alias("mine", stable=1))
    assert refused.value.status == 403


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_taken_as_they_are(cluster: Cluster, api: Api, path: Any) -> None:
    kubectl(cluster, "-n", api.namespace, "apply", "--server-side", "--validate=strict", "-f", str(path))
    for manifest in yaml.safe_load_all(path.read_text()):
        assert api.get(manifest["kind"], manifest["metadata"]["name"]) is not None


# -- how a model chooses pods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routing", "words"),
    [
        ({"strategy": "RoundRobin"}, ("spec.routing.strategy", "RoundRobin", "LeastInFlight", "PrefixHash")),
        ({"prefixLength": 64}, ("spec.routing.prefixLength", "with the strategy PrefixHash only")),
        ({"loadFactorPercent": 125}, ("spec.routing.loadFactorPercent", "with the strategy PrefixHash only")),
        ({"strategy": "PrefixHash", "prefixLength": 15}, ("spec.routing.prefixLength", "equal to 16")),
        ({"strategy": "PrefixHash", "prefixLength": 16385}, ("spec.routing.prefixLength", "equal to 16384")),
        ({"strategy": "PrefixHash", "loadFactorPercent": 99}, ("spec.routing.loadFactorPercent", "equal to 100")),
        ({"strategy": "PrefixHash", "loadFactorPercent": 1001}, ("spec.routing.loadFactorPercent", "equal to 1000")),
    ],
)
def test_bad_input_a_way_to_choose_pods_that_there_is_not(
    api: Api, routing: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert_says(refusal(api, {"routing": routing}), *words)


def test_ways_to_choose_pods_are_taken(gateway: GatewayProcess, api: Api, key: str) -> None:
    api.create(model("least", routing={}))
    api.create(model("prefix", routing={"strategy": "PrefixHash", "prefixLength": 16, "loadFactorPercent": 1000}))
    both = [f"{api.namespace}/{name}" for name in ("least", "prefix")]
    eventually(lambda: models(gateway, key) == both, "both are listed", seconds=5)
    stored = api.get("InferenceModel", "least")
    assert stored is not None
    assert stored["spec"]["routing"] == {"strategy": "LeastInFlight"}


# -- templates --------------------------------------------------------------------------------------------------------


def test_templates_are_edited_while_the_gateway_runs(
    gateway: GatewayProcess, api: Api, key: str, templates: Api
) -> None:
    api.create(model("tiny", suspend=True))
    eventually(lambda: models(gateway, key) == [f"{api.namespace}/tiny"], "it is listed", seconds=5)
    # A scenario that there is gets as far as the model, which is stopped.
    for scenario in ("qa", "summarize", "rewrite"):
        assert generate(gateway, key, scenario=scenario).json()["error"]["code"] == "model_not_ready"
    answer = generate(gateway, key, scenario="translate")
    assert answer.status_code == 400
    assert "the scenarios are qa, rewrite, summarize" in answer.json()["error"]["message"]

    templates.patch("ConfigMap", TEMPLATES, {"data": {"translate": "Translate: {{ inputs }}", "rewrite": None}})
    eventually(lambda: generate(gateway, key, scenario="translate").status_code == 503, "it is there", seconds=5)
    assert generate(gateway, key, scenario="rewrite").status_code == 400


def test_a_broken_template_is_told_and_the_last_good_one_stays(
    gateway: GatewayProcess, api: Api, key: str, templates: Api
) -> None:
    api.create(model("tiny", suspend=True))
    eventually(lambda: models(gateway, key) == [f"{api.namespace}/tiny"], "it is listed", seconds=5)

    def broken() -> bool:
        page = httpx.get(f"http://127.0.0.1:{gateway.admin_port}/metrics", trust_env=False).text
        return 'moorage_gateway_template_broken{scenario="qa"} 1.0' in page

    assert not broken()
    endless = "{% for a in inputs %}{% for b in inputs %}{% endfor %}{% endfor %}{{ inputs }}"
    templates.patch("ConfigMap", TEMPLATES, {"data": {"qa": endless}})
    eventually(broken, "the metric tells", seconds=5)
    assert generate(gateway, key, scenario="qa").json()["error"]["code"] == "model_not_ready"
    told = [line for line in gateway.lines() if line.get("scenario") == "qa" and line["level"] == "warning"]
    assert "For is not possible" in told[-1]["why"]
    templates.patch("ConfigMap", TEMPLATES, {"data": {"qa": "{{ inputs }}"}})
    eventually(lambda: not broken(), "it is mended", seconds=5)


def test_the_gateway_may_read_its_own_config_map_and_no_other(admin: Api) -> None:
    theirs = admin.at(NAMESPACE).as_user(GATEWAY)
    named = {"fieldSelector": f"metadata.name={TEMPLATES}"}
    assert len(theirs.request("GET", theirs.path("ConfigMap"), params=named)["items"]) == 1
    for client, params in ((theirs, {}), (theirs, {"fieldSelector": "metadata.name=kube-root-ca.crt"})):
        with pytest.raises(ApiRefusedError) as refused:
            client.request("GET", client.path("ConfigMap"), params=params)
        assert refused.value.status == 403
