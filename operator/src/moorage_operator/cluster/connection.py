"""Where the API server is and how we prove who we are, by the `kubernetes` package's own loaders.

In a pod that is its service account, whose token the kubelet renews; elsewhere it is the kubeconfig (several files in
$KUBECONFIG are merged, exec plugins are run).
"""

import os
import time
from pathlib import Path
from typing import Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from moorage_operator.cluster.kinds import FIELD_MANAGER

TOKEN_SECONDS: Final = 60.0
"""How long credentials of a kubeconfig are used before they are read again; a plugin's are kept until they expire."""

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class CredentialsError(Exception):
    """There are no credentials, or none that can be used; the text says what to do."""


async def connect() -> ApiClient:
    """A client of the API server; close it when it is no longer needed. CredentialsError."""
    configuration = Configuration()
    # A watch keeps its connection for as long as it lasts; requests must not wait for one to end.
    configuration.connection_pool_maxsize = 0
    try:
        if SERVICE_ACCOUNT.is_file():
            load_incluster_config(client_configuration=configuration)
        else:
            await _load_kubeconfig(configuration)
    except (ConfigException, OSError, ValueError, TypeError, AttributeError) as error:
        raise CredentialsError(
            "cannot connect to the API server: no service account is mounted, and the kubeconfig "
            f"{os.environ.get('KUBECONFIG') or '~/.kube/config'} cannot be used: {error}"
        ) from error
    client = ApiClient(configuration)
    client.user_agent = FIELD_MANAGER
    return client


async def _load_kubeconfig(configuration: Configuration) -> None:
    # The package reads $KUBECONFIG once, when it is imported; persisting would write to files that are not ours.
    files = os.environ.get("KUBECONFIG")
    loader = await load_kube_config(config_file=files, client_configuration=configuration, persist_config=False)
    read_at = time.monotonic()

    async def refresh(current: Configuration) -> None:
        nonlocal read_at
        if time.monotonic() - read_at > TOKEN_SECONDS:
            read_at = time.monotonic()
            await loader.load_and_set(current)

    configuration.refresh_api_key_hook = refresh  # type: ignore[assignment]  # the package declares it as None


async def authorization(client: ApiClient) -> dict[str, str]:
    """The header that proves who we are, as fresh as it can be; empty where a client certificate does."""
    token = (await client.configuration.auth_settings()).get("BearerToken")
    return {"Authorization": token["value"]} if token else {}
