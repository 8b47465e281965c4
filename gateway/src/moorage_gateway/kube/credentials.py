"""Where the API server is and how we prove who we are: a pod's service account, or a kubeconfig outside a cluster.

https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class CredentialsError(Exception):
    """There are no credentials, or none that can be used; the text says what to do."""


@dataclass(frozen=True)
class Connection:
    """The address of the API server, and credentials: a token, or a client certificate inside `tls`."""

    server: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def connect(environment: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> Connection:
    """The pod's service account where there is one, else what $KUBECONFIG names."""
    if (account / "token").is_file():
        return _at_account(environment, account, (account / "token").read_text().strip())
    return _connection(_context(environment, "no credentials"))


def server_alone(environment: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> Connection:
    """Where the API server is, without a credential: for callers that must act with credentials of others.

    Not even a client certificate, which the API server would believe rather than a token that comes with it.
    """
    if (account / "ca.crt").is_file():
        return _at_account(environment, account, None)
    context = _context(environment, "no API server")
    return _connection(_Context(context.name, context.cluster, {}))


def _at_account(environment: Mapping[str, str], account: Path, token: str | None) -> Connection:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    address = f"[{host}]" if ":" in host else host
    return Connection(f"https://{address}:{port}", tls, token)


@dataclass(frozen=True)
class _Context:
    """What a context of a kubeconfig names."""

    name: str
    cluster: Mapping[str, Any] = field(repr=False)
    user: Mapping[str, Any] = field(repr=False)


def _context(environment: Mapping[str, str], missing: str) -> _Context:
    """The current context of the kubeconfig; CredentialsError, which begins with `missing` where there is none."""
    name = environment.get("KUBECONFIG")
    if not name:
        raise CredentialsError(f"{missing}: neither a service account is mounted nor does KUBECONFIG name a file")
    config = _read(Path(name))
    try:
        current = config["current-context"]
        context = _named(config, "contexts", current)["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        return _Context(current, cluster, _named(config, "users", context["user"]).get("user") or {})
    except (KeyError, TypeError) as error:
        raise CredentialsError(f"the kubeconfig {name} cannot be used: {type(error).__name__}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """What is in a kubeconfig, with the names of files that it has made absolute; CredentialsError."""
    import yaml  # in a pod it is not needed

    try:
        config: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
        for section, kind, names in _FILES:
            for entry in config.get(section) or ():
                content = entry.get(kind) or {}
                content.update({name: str(path.parent / content[name]) for name in names if content.get(name)})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise CredentialsError(f"the kubeconfig {path} cannot be used: {type(error).__name__}: {error}") from error
    return config


_FILES: Final = (
    ("clusters", "cluster", ("certificate-authority",)),
    ("users", "user", ("client-certificate", "client-key", "tokenFile")),
)


def _connection(context: _Context) -> Connection:
    """How a context's server is reached, and as whom; CredentialsError."""
    user, cluster = context.user, context.cluster
    if "exec" in user or "auth-provider" in user:
        raise CredentialsError(
            f"the context {context.name} gets its credentials from another program, which is not supported here; "
            "use one with a token or a client certificate (kubectl create token moorage-gateway)"
        )
    try:
        server: str = cluster["server"]
        token = user.get("token") or (Path(user["tokenFile"]).read_text().strip() if "tokenFile" in user else None)
        return Connection(server, _tls(cluster, user) if server.startswith("https:") else None, token)
    except (OSError, KeyError, ValueError) as error:
        raise CredentialsError(f"the context {context.name} cannot be used: {type(error).__name__}: {error}") from error


def _named(config: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    found: list[Mapping[str, Any]] = [entry for entry in config.get(kind) or () if entry["name"] == name]
    if not found:
        raise KeyError(f"{kind} has no {name!r}")
    return found[0]


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority")
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate"), _content(user, "client-key")
    if certificate and key:
        # The library reads both from files only.
        with tempfile.NamedTemporaryFile() as both:
            both.write(certificate + b"\n" + key)
            both.flush()
            tls.load_cert_chain(both.name)
    return tls


def _content(entry: Mapping[str, Any], name: str) -> bytes | None:
    """What a kubeconfig has as a file's name or as data."""
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"])
    return Path(entry[name]).read_bytes() if name in entry else None
