"""Amounts of CPU and memory, as Kubernetes writes them."""

from typing import Annotated

from pydantic.json_schema import WithJsonSchema

from moorage_operator.api.schema import rule, rules


def _quantity(pattern: str, least: str, most: str, examples: str) -> WithJsonSchema:
    """A Kubernetes quantity of at most three decimals, which is what the API server stores without rounding.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    text = "string(self)"
    check = rule(
        f"{text}.matches('{pattern}') && quantity({text}).compareTo(quantity('{least}')) >= 0"
        f" && quantity({text}).compareTo(quantity('{most}')) <= 0",
        f"must be a positive Kubernetes quantity from {least} to {most}, without spaces, such as {examples}",
    )
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, **rules(check)})


Cpu = Annotated[int | str, _quantity("^([0-9]{1,7}m|[0-9]{1,4}([.][0-9]{1,3})?)$", "1m", "1024", "500m, 0.5 or 4")]
"""CPU cores."""

Memory = Annotated[
    int | str, _quantity("^[0-9]{1,15}([.][0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$", "16Mi", "64Ti", "512Mi, 1.5Gi or 16Gi")
]
"""Bytes of memory."""
