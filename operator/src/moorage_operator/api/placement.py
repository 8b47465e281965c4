"""Which nodes a model may run on: labels that they must have, and taints that are no obstacle."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from moorage_operator.api.schema import ApiModel, literal, matching, rule, rules

MAX_SELECTORS: Final = 16
MAX_TOLERATIONS: Final = 16

_PREFIX: Final = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/"
_KEY: Final = f"({_PREFIX})?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
_VALUE: Final = "([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_MAX_KEY: Final = 253 + 1 + 63

# Taints by which Kubernetes takes a node out of use: a pod that tolerates them stays on a node that is gone or being
# drained; and the machines that run the cluster itself.
_RESERVED: Final = "node[.]kubernetes[.]io/|node[.]cloudprovider[.]kubernetes[.]io/|node-role[.]kubernetes[.]io/"

LabelValue = Annotated[
    str,
    Field(
        description="The value that the label must have.",
        examples=["NVIDIA-H200"],
        max_length=63,
        json_schema_extra=matching(_VALUE, "must be a label's value: letters, digits, '-', '_' and '.', at most 63"),
    ),
]

_IS_KEY: Final = f"size(key) <= {_MAX_KEY} && key.matches({literal(f'^{_KEY}$')})"
SELECTOR_RULE: Final = rule(
    f"self.all(key, {_IS_KEY})",
    "each key must be the name of a label, NAME or DOMAIN/NAME, for example nvidia.com/gpu.product",
    value=f"self.map(key, key).filter(key, !({_IS_KEY}))[0]",
)


class TaintOperator(StrEnum):
    """How a toleration is compared with a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A taint of nodes that is no obstacle. A key is needed: what tolerates everything stays on nodes that are gone."""

    key: str = Field(
        description="Key of the taint. Those by which Kubernetes takes nodes out of use are reserved.",
        examples=["nvidia.com/gpu"],
        min_length=1,
        max_length=_MAX_KEY,
        json_schema_extra=rules(
            rule(
                f"self.matches({literal(f'^{_KEY}$')})",
                "must be the key of a taint, NAME or DOMAIN/NAME, for example nvidia.com/gpu",
            ),
            rule(
                f"!self.matches({literal(f'^({_RESERVED})')})",
                "taints of node.kubernetes.io, node.cloudprovider.kubernetes.io and node-role.kubernetes.io cannot be "
                "tolerated: they keep pods off nodes that are gone, drained or the control plane; use one of your own, "
                "for example nvidia.com/gpu",
            ),
        ),
    )
    operator: TaintOperator = Field(
        TaintOperator.EQUAL,
        description="Equal: the taint has this value. Exists: the taint may have any.",
        examples=["Exists"],
        json_schema_extra={"maxLength": 8},
    )
    value: str | None = Field(
        None,
        description="Value of the taint; absent means empty. Only with operator Equal.",
        examples=["present"],
        min_length=1,
        max_length=63,
        json_schema_extra=matching(_VALUE, "must be a taint's value: letters, digits, '-', '_' and '.', at most 63"),
    )
    effect: TaintEffect | None = Field(
        None,
        description="Effect of the taint; absent means every effect.",
        examples=["NoSchedule"],
        json_schema_extra={"maxLength": 16},
    )
    toleration_seconds: int | None = Field(
        None,
        description="Seconds that pods stay after the taint has come; absent means for ever. Only with NoExecute.",
        examples=[300],
        ge=0,
        le=604800,
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.value) || self.operator == 'Equal'",
                "operator Exists is for every value: remove value, or set operator to Equal",
                field_path=".value",
                value="self.value",
            ),
            rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "seconds have a meaning with effect NoExecute only: set that, or remove tolerationSeconds",
                field_path=".tolerationSeconds",
            ),
        )
    )
