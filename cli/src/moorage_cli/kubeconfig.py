"""Which cluster, as whom: what kubectl would take, read by the official client; in a pod, its service account."""

import logging
import os
from pathlib import Path

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from moorage_cli.output import CommandError


def reach(path: str | None, context: str | None) -> tuple[ApiClient, str]:
    """A client, and the namespace that is meant where none is said; CommandError.

    `path` is a kubeconfig, else what $KUBECONFIG lists, else ~/.kube/config, else the pod's service account.
    """
    logging.basicConfig(format="%(message)s")  # why an exec plugin fails, the client says in its log only
    files = path or os.environ.get("KUBECONFIG") or "~/.kube/config"
    configuration = Configuration(retries=False)
    try:
        merger = KubeConfigMerger(files)
        if merger.config is not None:
            namespace = _load(merger, context, configuration)
        elif path is None and Path(SERVICE_TOKEN_FILENAME).is_file():
            load_incluster_config(configuration)
            namespace = Path(SERVICE_TOKEN_FILENAME).with_name("namespace").read_text().strip()
        else:
            raise CommandError(f"{files} does not exist: give --kubeconfig FILE or set KUBECONFIG")
    except (ConfigException, OSError, yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The client's message may quote a whole entry, and with it a token.
        raise CommandError(f"the kubeconfig {files} cannot be used: {str(error).partition('{')[0]}") from error
    return ApiClient(configuration), namespace


def _load(merger: KubeConfigMerger, context: str | None, configuration: Configuration) -> str:
    """Fill in the configuration from a context; gives the namespace."""
    # Of several files kubectl takes the first current-context, and the client the last.
    current = filter(None, (config.get("current-context") for config in merger.config_files.values()))
    loader = KubeConfigLoader(merger.config, context or next(current, None), config_base_path=None)
    loader.load_and_set(configuration)
    chosen, plugin = loader.current_context, loader._user and loader._user.safe_get("exec")
    if plugin and not configuration.api_key and not configuration.cert_file:
        hint = plugin.get("installHint") or "does it run by itself?"
        raise CommandError(f"{plugin['command']} of the context {chosen['name']} gave no credentials: {hint}")
    if configuration.api_key:
        loader.token = loader.token.strip()  # a tokenFile may end with a newline
        if not (loader.token.isascii() and loader.token.isprintable()):
            raise CommandError(f"the token of the context {chosen['name']} is not one line of ASCII")
    namespace: str = chosen["context"].get("namespace") or "default"
    return namespace
