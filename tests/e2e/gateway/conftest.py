"""The gateway in the cluster, as the chart installs it, and a key."""

from collections.abc import Iterator

import openai
import pytest

from hack import demo
from hack.cluster.api import Cluster
from hack.images.api import Image
from tests.support.api import Api
from tests.support.gateway import make_key
from tests.support.operator import KEYS, NAMESPACE, kubectl


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, images: dict[str, Image]) -> Iterator[str]:
    """The address of the gateway's Service; no gateway has logged an error at the end."""
    kubectl(cluster, "create", "namespace", KEYS, check=False)
    repository, _, tag = images["gateway"].reference.rpartition(":")
    values = f"gateway.enabled=true,gateway.image.repository={repository},gateway.keyNamespace={KEYS}"
    values += ",gateway.management.enabled=true"
    # What is cut off in a test must not hold up its end.
    options = ("--set", f"{values},gateway.drainSeconds=30", "--set-string", f"gateway.image.tag={tag}")
    demo.install(cluster, images, *options)
    address = kubectl(cluster, "-n", NAMESPACE, "get", "service", "moorage-gateway", "-o", "jsonpath={.spec.clusterIP}")
    yield f"http://{address}"
    logs = kubectl(cluster, "-n", NAMESPACE, "logs", "--selector=app.kubernetes.io/name=moorage-gateway", "--tail=-1")
    errors = [line for line in logs.splitlines() if '"level":"error"' in line]
    demo.install(cluster, images)
    assert errors == []


@pytest.fixture
def client(gateway: str, admin: Api, api: Api) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, without retries that would hide a fault."""
    key = make_key(admin, api.namespace, models=f"{api.namespace}/*")
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0, timeout=60) as made:
        yield made
