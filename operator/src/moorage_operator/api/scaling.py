"""How many replicas a model has while the operator chooses: by the requests that come through the gateway."""

from typing import Final

from pydantic import ConfigDict, Field

from moorage_operator.api.quantities import Duration, seconds
from moorage_operator.api.schema import ApiModel, rule, rules

IDLE_TIMEOUT: Final = "30m"
ONE_NUMBER_OF_REPLICAS: Final = rule(
    "!has(self.scaling) || self.replicas == 1",
    "with scaling the operator chooses the number: leave replicas out and set scaling.minReplicas and maxReplicas, or "
    "remove scaling; suspend stops the model",
    field_path=".replicas",
)


class Scaling(ApiModel):
    """Bounds of the number of replicas, and what changes it."""

    min_replicas: int = Field(
        1,
        description="Minimum number of replicas. 0 scales it to zero: without requests for idleTimeout all its "
        "GPUs are free, and the next request through a gateway wakes it.",
        examples=[0],
        ge=0,
        le=100,
    )
    max_replicas: int = Field(1, description="Maximum number of replicas.", examples=[3], ge=1, le=100)
    target_concurrency: int | None = Field(
        None,
        description="Requests for each replica, those that wait included: with more of them there are more replicas. "
        "Absent means as many as a replica works on at a time (maxConcurrency).",
        examples=[32],
        ge=1,
        le=10_000,
    )
    idle_timeout: Duration | None = Field(
        None,
        description="Time without a request through any gateway after which the model sleeps, such as 90s, 30m or "
        f"1h30m. Only with minReplicas 0; absent means {IDLE_TIMEOUT}.",
        examples=["30m"],
    )
    scale_down_delay: Duration = Field(
        "5m",
        description="How long fewer replicas must have sufficed before it is scaled down.",
        examples=["5m"],
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "maxReplicas must be at least minReplicas; raise maxReplicas, or lower minReplicas",
                field_path=".maxReplicas",
            ),
            rule(
                "!has(self.idleTimeout) || self.minReplicas == 0",
                "with minReplicas 1 or more the model never sleeps: remove idleTimeout, or set minReplicas to 0",
                field_path=".idleTimeout",
            ),
        )
    )

    @property
    def sleeps_after(self) -> str:
        """`idle_timeout`, or what its absence means."""
        return self.idle_timeout or IDLE_TIMEOUT

    @property
    def idle_seconds(self) -> float:
        """`sleeps_after` in seconds."""
        return seconds(self.sleeps_after)

    @property
    def delay_seconds(self) -> float:
        """`scale_down_delay` in seconds."""
        return seconds(self.scale_down_delay)
