"""A namespace that the gateway cannot watch, with the times of its code; `tests/integration` has shorter ones."""

import time
from pathlib import Path

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api
from tests.support.lost_namespace import BACK_SECONDS, REAL, LostNamespace, unwatched
from tests.support.waiting import eventually


@pytest.mark.full_only
def test_cluster_01_02_namespaces_of_models_and_keys_that_are_lost_for_longer_than_liveness_waits(
    cluster: Cluster, admin: Api, tmp_path: Path
) -> None:
    bed = LostNamespace(cluster, admin, "real", tmp_path, REAL)
    with bed.running() as gateway:
        token = bed.user_token()
        deleted = time.monotonic()
        bed.take_binding(bed.b.namespace)
        bed.take_binding(bed.keys, "moorage-gateway-keys")
        eventually(lambda: len(unwatched(gateway)) == 4, "all is refused", seconds=REAL.renew + 10)
        bed.asks(gateway, bed.a, 503, seconds=REAL.refused + 10)
        bed.stays_well(gateway, deleted)
        bed.asks(gateway, bed.a, 200, token)
        bed.give_rights()
        bed.asks(gateway, bed.a, 200, seconds=BACK_SECONDS)
        bed.asks(gateway, bed.b, 200, seconds=BACK_SECONDS)
        eventually(lambda: unwatched(gateway) == [], "all is watched", seconds=BACK_SECONDS)
