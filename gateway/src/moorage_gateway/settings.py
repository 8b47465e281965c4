"""The gateway's settings, which are environment variables: MOORAGE_GATEWAY_ and the field's name in capitals."""

import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from moorage_gateway.addresses import Network, read_networks
from moorage_gateway.hold import HoldLimits

PREFIX: Final = "MOORAGE_GATEWAY_"
NAME: Final = "moorage-gateway"
"""Who we are to the API server, and whom tokens are for."""

Port = Annotated[int, Meta(ge=0, le=65535)]


class SettingsError(Exception):
    """Settings that cannot be read; the text names every one that is wrong, its value, and what it means."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment decides."""

    host: Annotated[str, Meta(description="The address that clients are served at.")] = "0.0.0.0"  # noqa: S104
    port: Annotated[Port, Meta(description="The port that clients are served at.")] = 8080
    admin_port: Annotated[
        Port, Meta(description="The port of /livez, /readyz, /metrics and /demand; not for clients.")
    ] = 9090
    workers: Annotated[
        int, Meta(ge=1, le=64, description="Processes that serve clients, all at one port: one for each core.")
    ] = 1
    namespaces: Annotated[
        str, Meta(description="Namespaces whose models are served, between commas; empty serves all of them.")
    ] = ""
    key_namespace: Annotated[
        str, Meta(description="The namespace of the Secrets with API keys; empty takes no API keys.")
    ] = ""
    audience: Annotated[
        str,
        Meta(description="The audience that tokens of Kubernetes have to be made for, clients' and the operator's."),
    ] = NAME
    templates: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9][-a-z0-9]*/[a-z0-9][-.a-z0-9]*)?$",
            description="NAMESPACE/NAME of the ConfigMap with the templates of /v1/generate; empty has no scenarios.",
        ),
    ] = ""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=2**30, description="The largest body of a request.")] = 4 * 2**20
    hold_requests: Annotated[
        int, Meta(ge=0, le=100_000, description="Requests that may wait for models that are not ready; 0: none.")
    ] = 2000
    hold_requests_per_model: Annotated[int, Meta(ge=0, le=100_000, description="The same of one model.")] = 500
    hold_bytes: Annotated[int, Meta(ge=0, le=2**34, description="The bodies of all requests that wait.")] = 64 * 2**20
    hold_seconds: Annotated[float, Meta(ge=0, le=3600, description="How long a request may wait.")] = 600.0
    heartbeat_seconds: Annotated[
        float,
        Meta(ge=0.1, le=300, description="After how long, and how often, a client of a stream is told that it waits."),
    ] = 10.0
    drain_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="How long requests may go on after SIGTERM before they are cut off.")
    ] = 600.0
    management_socket: Annotated[
        str,
        Meta(
            max_length=100,
            description="The unix socket of the management API, in a folder that nobody else may write to; "
            "empty goes without the API.",
        ),
    ] = ""
    tls_certificate: Annotated[
        str, Meta(description="The file of the certificate (PEM) that clients are shown; empty serves without TLS.")
    ] = ""
    tls_key: Annotated[str, Meta(description="The file of the certificate's key (PEM).")] = ""
    trusted_proxies: Annotated[
        str,
        Meta(description="Networks (10.0.0.0/8), between commas, whose X-Forwarded-For is believed; empty: none."),
    ] = ""
    access_log_per_second: Annotated[
        int,
        Meta(
            ge=0,
            le=10**9,
            description="Lines of the access log a second: so many of successes, so many of failures; the others are "
            "counted. 0 is no access log.",
        ),
    ] = 100
    make_traces: Annotated[
        bool, Meta(description="Give a W3C trace context (not sampled) to requests that come without one.")
    ] = False
    failed_logins_per_minute: Annotated[
        int,
        Meta(ge=1, le=10**6, description="Failed logins of one address, or with one key, before it gets 429 for more."),
    ] = 30
    new_tokens_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=10**6,
            description="Kubernetes tokens never seen before that the API server is asked about, of all clients; more "
            "get 503.",
        ),
    ] = 3000
    log_level: Annotated[
        typing.Literal["DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="The least level that is logged.")
    ] = "INFO"

    @property
    def hold(self) -> HoldLimits:
        """What may wait."""
        per_model, all_bytes = self.hold_requests_per_model, self.hold_bytes
        return HoldLimits(self.hold_requests, per_model, all_bytes, self.hold_seconds, self.heartbeat_seconds)

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """The networks of proxies that are believed."""
        return read_networks(self.trusted_proxies)

    @property
    def served_namespaces(self) -> tuple[str | None, ...]:
        """The namespaces; None is all of them."""
        names = tuple(name.strip() for name in self.namespaces.split(",") if name.strip())
        return names or (None,)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read all settings; SettingsError."""
    values: dict[str, Any] = {}
    problems = []
    for field, hint in typing.get_type_hints(Settings, include_extras=True).items():
        name = PREFIX + field.upper()
        if not (text := environment.get(name, "")):
            continue
        try:
            values[field] = msgspec.convert(text, hint, strict=False)
        except msgspec.ValidationError as error:
            problems.append(f"{name} is {text[:100]!r}: {error}. It means: {_meaning(hint)}")
    known = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    problems += [f"{name} is no setting." for name in environment if name.startswith(PREFIX) and name not in known]
    if bool(values.get("tls_certificate")) != bool(values.get("tls_key")):
        problems.append(f"{PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY have to be set both, or none of them.")
    try:
        read_networks(values.get("trusted_proxies", ""))
    except ValueError as error:
        problems.append(f"{PREFIX}TRUSTED_PROXIES has what is no network such as 10.0.0.0/8: {error}.")
    if problems:
        raise SettingsError(" ".join(problems))
    return Settings(**values)


def _meaning(hint: Any) -> str:
    return next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description)
