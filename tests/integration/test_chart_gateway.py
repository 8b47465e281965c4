"""What the chart makes for the gateway's administrative port: a token, a right and a NetworkPolicy, or nothing."""

from typing import Any

import pytest
import yaml

from hack.cluster.api import Cluster
from moorage_gateway.settings import read_settings
from tests.integration.test_chart_policies import rendered
from tests.support.api import Api, Object
from tests.support.operator import NAMESPACE

ON = "gateway.enabled=true"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
OPERATOR = {
    "podSelector": {
        "matchLabels": {"app.kubernetes.io/name": "moorage-operator", "app.kubernetes.io/instance": "moorage"}
    }
}


def objects(cluster: Cluster, *settings: str, flags: tuple[str, ...] = ()) -> dict[tuple[str, str], Object]:
    """What the chart makes, by kind and name."""
    done = rendered(cluster, *settings, flags=flags)
    assert done.returncode == 0, done.stderr
    return {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(done.stdout) if found}


def pod(made: dict[tuple[str, str], Object], name: str) -> tuple[Object, dict[str, Any]]:
    """The pod of a Deployment, and its container's environment."""
    spec = made["Deployment", name]["spec"]["template"]["spec"]
    return spec, {entry["name"]: entry.get("value") for entry in spec["containers"][0]["env"]}


@pytest.mark.parametrize("audience", ["moorage-gateway", "ours"])
def test_the_operator_has_a_token_for_the_gateway_only(cluster: Cluster, audience: str) -> None:
    made = objects(cluster, ON, f"gateway.audience={audience}")
    operator, environment = pod(made, "moorage-operator")
    (volume,) = operator["volumes"]
    (source,) = volume["projected"]["sources"]
    (mount,) = operator["containers"][0]["volumeMounts"]
    told = source["serviceAccountToken"]
    assert mount["name"] == volume["name"]
    assert environment["MOORAGE_GATEWAY_TOKEN_FILE"] == f"{mount['mountPath']}/{told['path']}"
    assert 600 <= told["expirationSeconds"] <= 3600
    assert told["audience"] == read_settings(pod(made, "moorage-gateway")[1]).audience == audience


@pytest.mark.parametrize("wide", ["false", "true"])
def test_the_operator_and_nobody_else_is_given_the_right(cluster: Cluster, wide: str) -> None:
    made = objects(cluster, ON, f"clusterWide={wide}")
    having = {key: found for key, found in made.items() if "/demand" in str(found.get("rules"))}
    assert [*having] == [("ClusterRole", "moorage-operator-demand")]
    (role,) = having.values()
    assert role["rules"] == [{"nonResourceURLs": ["/demand"], "verbs": ["get"]}]
    bound = [found for found in made.values() if found.get("roleRef", {}).get("name") == "moorage-operator-demand"]
    assert [(found["kind"], found["subjects"]) for found in bound] == [
        ("ClusterRoleBinding", [{"kind": "ServiceAccount", "name": "moorage-operator", "namespace": "default"}])
    ]


def test_without_a_gateway_nothing_is_mounted_given_or_closed(cluster: Cluster) -> None:
    made = objects(cluster)
    operator, environment = pod(made, "moorage-operator")
    assert "volumes" not in operator
    assert "volumeMounts" not in operator["containers"][0]
    assert not [name for name in environment if name.startswith("MOORAGE_GATEWAY")]
    assert not [key for key in made if key[0] == "NetworkPolicy" or "demand" in key[1]]


@pytest.mark.parametrize(
    ("settings", "peers"),
    [
        ((), [OPERATOR, MONITORING]),
        (("gateway.networkPolicy.metricsFrom=null",), [OPERATOR]),
        (
            ("gateway.networkPolicy.metricsFrom[0].ipBlock.cidr=10.1.0.0/16",),
            [OPERATOR, {"ipBlock": {"cidr": "10.1.0.0/16"}}],
        ),
    ],
)
def test_the_administrative_port_is_for_the_operator_and_who_else_is_named(
    cluster: Cluster, settings: tuple[str, ...], peers: list[Object]
) -> None:
    made = objects(cluster, ON, *settings)
    spec = made["NetworkPolicy", "moorage-gateway"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [
        {"ports": [{"port": 8080, "protocol": "TCP"}]},
        {"ports": [{"port": 9090, "protocol": "TCP"}], "from": peers},
    ]
    gateway = made["Deployment", "moorage-gateway"]["spec"]["template"]
    assert spec["podSelector"]["matchLabels"].items() <= gateway["metadata"]["labels"].items()
    ports = [entry["containerPort"] for entry in gateway["spec"]["containers"][0]["ports"]]
    assert ports == [8080, 9090]
    operator = made["Deployment", "moorage-operator"]["spec"]["template"]["metadata"]["labels"]
    assert OPERATOR["podSelector"]["matchLabels"].items() <= operator.items()


def test_the_policy_can_be_left_out(cluster: Cluster) -> None:
    assert not [key for key in objects(cluster, ON, "gateway.networkPolicy.enabled=false") if key[0] == "NetworkPolicy"]


@pytest.mark.parametrize(
    "setting",
    [
        "gateway.networkPolicy.enabled=often",
        "gateway.networkPolicy.metricsFrom=monitoring",
        "gateway.networkPolicy.metricsFrom[0].namespace=monitoring",
        "gateway.networkPolicy.metricsFrom[0].ipBlock.except[0]=10.0.0.0/8",
        "gateway.networkPolicy.x=1",
    ],
)
def test_what_is_no_policy_is_refused(cluster: Cluster, setting: str) -> None:
    done = rendered(cluster, ON, setting)
    assert done.returncode != 0
    assert "networkPolicy" in done.stderr


def test_the_api_server_takes_the_policy_as_it_is(admin: Api) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/moorage-gateway"
    ingress = admin.request("GET", path)["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in ingress] == [[8080], [9090]]
    assert "from" not in ingress[0]
    assert ingress[1]["from"] == [OPERATOR, MONITORING]
