"""A namespace that the gateway cannot watch any more, on a real API server: the others do not notice.

The gateway's times are shortened; `tests/chaos/test_gateway_lost_namespace.py` has one with those of its code.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.lost_namespace import BACK_SECONDS, LostNamespace, Times, gauge, told, unwatched
from tests.support.models import model
from tests.support.operator import kubectl
from tests.support.waiting import eventually

KINDS = ("EndpointSlice", "InferenceModel", "ModelAlias")
Making = Callable[[str], LostNamespace]


@pytest.fixture
def make(cluster: Cluster, admin: Api, tmp_path: Path) -> Making:
    """Makes namespaces, rights and models."""
    return lambda name: LostNamespace(cluster, admin, name, tmp_path, Times.short())


def test_cluster_01_a_rolebinding_that_is_deleted_stops_one_namespace_only(make: Making) -> None:
    bed = make("binding")
    with bed.running() as gateway:
        lost = [(kind, bed.b.namespace) for kind in KINDS]
        deleted = time.monotonic()
        bed.take_binding(bed.b.namespace)
        eventually(lambda: len(unwatched(gateway)) == len(lost), "all three kinds are refused")
        assert all(f"in namespace {bed.b.namespace}: 403 Forbidden" in one for one in unwatched(gateway))
        assert gauge(gateway, "InferenceModel", bed.b.namespace) == 1
        assert gauge(gateway, "InferenceModel", bed.a.namespace) == 0
        # What was known is used for a while, then not any more.
        bed.asks(gateway, bed.b, 404, seconds=bed.times.renew + bed.times.kept + 10)
        bed.a.create(model("late"))
        bed.asks(gateway, bed.a, 200)
        with bed.gateway("second") as second:  # one that starts now becomes ready
            bed.asks(second, bed.a, 200)
            assert bed.ask(second, bed.b).status_code == 404
        bed.stays_well(gateway, deleted)
        assert told(gateway, "a kind cannot be watched; retrying") == lost

        bed.give_rights(bed.b.namespace)
        bed.asks(gateway, bed.b, 200, seconds=BACK_SECONDS)
        eventually(lambda: unwatched(gateway) == [], "all is watched", seconds=BACK_SECONDS)
        assert told(gateway, "a kind can be watched again") == lost
        assert gauge(gateway, "InferenceModel", bed.b.namespace) == 0


def test_cluster_01_a_namespace_that_is_deleted_and_made_again_is_served_again(make: Making) -> None:
    bed = make("namespace")
    with bed.running() as gateway:
        deleted = time.monotonic()
        kubectl(bed.cluster, "delete", "namespace", bed.b.namespace, "--timeout=60s")
        bed.asks(gateway, bed.b, 404, seconds=20)
        eventually(lambda: len(unwatched(gateway)) == len(KINDS), "all three kinds are refused")
        bed.asks(gateway, bed.a, 200)
        bed.stays_well(gateway, deleted)

        bed.admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": bed.b.namespace}})
        bed.give_rights(bed.b.namespace)
        bed.serve_model(bed.b)
        bed.asks(gateway, bed.b, 200, seconds=BACK_SECONDS)
        eventually(lambda: unwatched(gateway) == [], "all is watched", seconds=BACK_SECONDS)


def test_cluster_02_without_the_namespace_of_the_keys_tokens_are_served(make: Making) -> None:
    bed = make("keys")
    with bed.running() as gateway:
        token = bed.user_token()
        bed.asks(gateway, bed.a, 200, token)
        deleted = time.monotonic()
        bed.take_binding(bed.keys, "moorage-gateway-keys")
        bed.asks(gateway, bed.a, 503, seconds=20)
        refused = bed.ask(gateway, bed.a).json()["error"]
        assert refused["code"] == "not_checked"
        assert "API keys cannot be checked now" in refused["message"]
        assert bed.ask(gateway, bed.a, token).status_code == 200
        assert unwatched(gateway) == [f"Secret in namespace {bed.keys}: 403 Forbidden"]
        # A key is revoked where the gateway does not see it.
        bed.admin.request("DELETE", f"{bed.secrets}/key-kept")
        bed.stays_well(gateway, deleted)
        assert bed.ask(gateway, bed.a).status_code == 503

        bed.give_rights(bed.keys)
        bed.asks(gateway, bed.a, 401, seconds=BACK_SECONDS)
        assert bed.ask(gateway, bed.a, token).status_code == 200
        eventually(lambda: unwatched(gateway) == [], "all is watched", seconds=BACK_SECONDS)
