"""Which cluster, as whom: what kubectl would take, in the same order, and programs that give credentials too.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from moorage_common.kube.credentials import (
    SERVICE_ACCOUNT,
    Connection,
    Context,
    CredentialsError,
    choose,
    connect,
    connection_of,
    read_kubeconfig,
)

EXEC_SECONDS: Final = 60.0


def reach(environment: Mapping[str, str], path: str | None, context: str | None) -> tuple[Connection, str]:
    """How the cluster is reached, and the namespace that is meant where none is said; CredentialsError.

    `path` is a kubeconfig, else what $KUBECONFIG lists, else ~/.kube/config, else the pod's service account.
    """
    home = Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"
    listed = [Path(name) for name in (path or environment.get("KUBECONFIG", "")).split(os.pathsep) if name]
    if not listed and home.is_file():
        listed = [home]
    if not listed:
        if (SERVICE_ACCOUNT / "token").is_file():
            return connect(environment), (SERVICE_ACCOUNT / "namespace").read_text().strip()
        raise CredentialsError("no cluster: say --kubeconfig, set KUBECONFIG, or run it where kubectl works")
    # Of several, those that are not there are no error, as with kubectl; a single one has to be.
    there = [one for one in listed if one.is_file()] or listed[:1]
    chosen = choose(_merged(there), ", ".join(map(str, there)), context)
    if "exec" in chosen.user:
        chosen = replace(chosen, user=_credentials_of(chosen, environment))
    return connection_of(chosen), chosen.namespace


def _merged(paths: list[Path]) -> dict[str, Any]:
    """Several kubeconfigs as one: of each name the first one counts."""
    merged: dict[str, Any] = {}
    for path in paths:
        config = read_kubeconfig(path)
        for section in ("clusters", "contexts", "users"):
            known = {entry["name"] for entry in merged.setdefault(section, [])}
            merged[section] += [entry for entry in config.get(section) or () if entry["name"] not in known]
        if config.get("current-context"):
            merged.setdefault("current-context", config["current-context"])
    return merged


def _credentials_of(context: Context, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the program of a context gives, as a user of a kubeconfig has it."""
    asked = context.user["exec"]
    version = asked.get("apiVersion", "client.authentication.k8s.io/v1")
    spec: dict[str, Any] = {"interactive": False}
    if asked.get("provideClusterInfo"):
        spec["cluster"] = context.cluster
    info = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec})
    more = {entry["name"]: entry["value"] for entry in asked.get("env") or ()}
    command = [asked["command"], *(asked.get("args") or ())]
    try:
        done = subprocess.run(
            command,
            env={**environment, **more, "KUBERNETES_EXEC_INFO": info},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=EXEC_SECONDS,
            check=True,
        )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        hint = f" {asked['installHint']}" if asked.get("installHint") else ""
        kind = type(error).__name__
        raise CredentialsError(
            f"{command[0]} of the context {context.name} gave no credentials: {kind}.{hint}"
        ) from error
    user: dict[str, Any] = {}
    if token := status.get("token"):
        user["token"] = token
    for name, field in (("client-certificate-data", "clientCertificateData"), ("client-key-data", "clientKeyData")):
        if text := status.get(field):
            user[name] = b64encode(text.encode()).decode()
    return user
