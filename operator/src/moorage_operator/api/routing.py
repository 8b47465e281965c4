"""How the gateway chooses a pod for a request. Only the gateway acts on it: no pod knows of it."""

from enum import StrEnum

from pydantic import ConfigDict, Field

from moorage_operator.api.schema import ApiModel, rule, rules


class Strategy(StrEnum):
    """Which pod gets a request."""

    LEAST_IN_FLIGHT = "LeastInFlight"
    PREFIX_HASH = "PrefixHash"


class Routing(ApiModel):
    """How the gateway chooses a pod for a request."""

    strategy: Strategy = Field(
        Strategy.LEAST_IN_FLIGHT,
        description="LeastInFlight: the pod with the fewest requests in flight. PrefixHash: requests that begin alike "
        "go to the same pod, whose cache has their prefix, as long as it is not much busier than the others.",
        examples=["PrefixHash"],
        json_schema_extra={"maxLength": 32},
    )
    prefix_length: int | None = Field(
        None,
        description="How much of a request is its prefix: so many characters of the system message and of the first "
        "message of the user each, or of the prompt; characters beyond ASCII count as several. Absent means 256.",
        examples=[256],
        ge=16,
        le=16_384,
    )
    load_factor_percent: int | None = Field(
        None,
        description="Requests in flight that a pod may have, in percent of the average of all pods, before the next "
        "one gets what its prefix would bring it. Absent means 125.",
        examples=[125],
        ge=100,
        le=1000,
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.strategy == 'PrefixHash' || !has(self.prefixLength)",
                "is possible with the strategy PrefixHash only",
                field_path=".prefixLength",
            ),
            rule(
                "self.strategy == 'PrefixHash' || !has(self.loadFactorPercent)",
                "is possible with the strategy PrefixHash only",
                field_path=".loadFactorPercent",
            ),
        )
    )
