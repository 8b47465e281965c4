"""The operator's settings: one typed object, read once from the environment, logged once. It holds no secrets."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from moorage_operator.desired.config import DesiredConfig


class Settings(BaseSettings):
    """Each field is the environment variable MOORAGE_ + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="MOORAGE_", frozen=True, extra="ignore")

    namespace: str = Field("moorage-system", description="Namespace of the operator; its Lease is there.")
    pod_name: str = Field(
        "moorage-operator-local", description="Name of the operator's pod: its identity in the Lease."
    )
    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Namespaces to serve, separated by commas; empty means all of the cluster."
    )
    images: dict[str, str] = Field(
        default_factory=dict, description='Runtime images as JSON: {"llamacpp/cpu": "IMAGE"}; devices are cpu and gpu.'
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="Pull policy of runtime and model images."
    )
    priority_class_prefix: str = Field(
        "moorage-", description="What the names of the PriorityClasses 1 to 10 begin with."
    )
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Secrets with which the images of models' pods are pulled, separated by commas; each model's "
        "namespace has its own.",
    )
    runtime_classes: dict[Literal["cpu", "gpu"], str] = Field(
        default_factory=dict, description='RuntimeClass of models\' pods by device, as JSON: {"gpu": "nvidia"}.'
    )
    set_user: bool = Field(
        True, description="Whether models' pods name their user and groups; off where the cluster assigns them."
    )
    workers: int = Field(
        8,
        ge=1,
        le=64,
        description="Models of one namespace that are reconciled at a time; of all namespaces, twice as many.",
    )
    facts: bool = Field(
        True, description="Whether pods are asked what they really run; off where they cannot be reached."
    )
    autoscaled_nodes: bool = Field(
        False,
        description="Whether an autoscaler can add nodes of any size: a model whose request no node has then waits.",
    )
    gateway_service: str = Field(
        "",
        description="Service of the gateways' administrative ports, in the operator's namespace: there it learns how "
        "models are used. Empty means that there is no gateway, and nothing is put to sleep.",
    )
    gateway_token_file: str = Field(
        "",
        description="File with the token that the gateways are shown, made for their audience; it is read for every "
        "connection, as the kubelet renews it. Without a token they refuse to tell how models are used.",
    )
    health_port: int = Field(8080, ge=0, le=65535, description="Port of /readyz and /metrics.")
    liveness_port: int = Field(8081, ge=1, le=65535, description="Port of /livez, kopf's liveness probe.")
    pod_ip: str = Field(
        "0.0.0.0",  # noqa: S104 - without an address of the pod, kopf would listen on the loopback only
        description="Address that /livez is served at.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level of the log.")

    @field_validator("watch_namespaces", "image_pull_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def liveness_endpoint(self) -> str:
        """Where kopf serves the liveness probe."""
        host = f"[{self.pod_ip}]" if ":" in self.pod_ip else self.pod_ip
        return f"http://{host}:{self.liveness_port}/livez"

    @property
    def desired(self) -> DesiredConfig:
        """What the builders of manifests need."""
        return DesiredConfig(
            images=self.images,
            image_pull_policy=self.image_pull_policy,
            priority_class_prefix=self.priority_class_prefix,
            image_pull_secrets=self.image_pull_secrets,
            runtime_classes={str(device): name for device, name in self.runtime_classes.items()},
            set_user=self.set_user,
        )
