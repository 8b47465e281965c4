"""Where the API server is and how we prove who we are, by the `kubernetes` package's own loaders.

In a pod that is its service account, whose token the kubelet renews; elsewhere it is the kubeconfig (several files in
$KUBECONFIG are merged, exec plugins are run).
"""

import math
import os
import time
from pathlib import Path
from typing import Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError

from moorage_operator.cluster.errors import UnavailableError
from moorage_operator.cluster.kinds import FIELD_MANAGER

FRESH_SECONDS: Final = 10.0
"""How long credentials of a kubeconfig are used before they are looked at again."""

_UNUSABLE: Final = (ConfigException, YAMLError, OSError, ValueError, TypeError, AttributeError)
"""What the package's loaders raise for a kubeconfig that cannot be used, or a plugin that fails."""

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
    except _UNUSABLE as error:
        raise CredentialsError(
            "cannot connect to the API server: no service account is mounted, and the kubeconfig "
            f"{os.environ.get('KUBECONFIG') or '~/.kube/config'} cannot be used: {error}"
        ) from error
    client = ApiClient(configuration)
    client.user_agent = FIELD_MANAGER
    return client


async def _load_kubeconfig(configuration: Configuration) -> None:
    loader, read_at, changed_at = None, -math.inf, 0.0

    async def refresh(current: Configuration) -> None:
        nonlocal loader, read_at, changed_at
        if time.monotonic() - read_at < FRESH_SECONDS:
            return
        read_at, before = time.monotonic(), changed_at
        files = _kubeconfigs()
        changed_at = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
        if loader is None or changed_at != before:
            names = os.pathsep.join(str(file) for file in files)
            loader = await load_kube_config(config_file=names, client_configuration=current, persist_config=False)
        else:
            # A plugin's credentials are kept until they expire, a token's file is read again.
            await loader.load_and_set(current)

    async def refresh_later(current: Configuration) -> None:
        try:
            await refresh(current)
        except _UNUSABLE as error:
            raise UnavailableError(f"the kubeconfig's credentials cannot be renewed: {str(error)[:500]}") from error

    await refresh(configuration)
    configuration.refresh_api_key_hook = refresh_later  # type: ignore[assignment]  # the package declares it as None


def _kubeconfigs() -> list[Path]:
    # The package looks for $KUBECONFIG once, when it is imported.
    names = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    return [Path(name) for name in names.split(os.pathsep)]


async def authorization(client: ApiClient) -> dict[str, str]:
    """The header that proves who we are, as fresh as it can be; empty where a client certificate does.

    UnavailableError where the kubeconfig, or its plugin, does not give them any more.
    """
    token = (await client.configuration.auth_settings()).get("BearerToken")
    return {"Authorization": token["value"]} if token else {}
