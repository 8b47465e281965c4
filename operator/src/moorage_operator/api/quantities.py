"""Amounts of CPU, memory and time, as Kubernetes writes them."""

import re
from typing import Annotated, Final

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

_DURATION: Final = "([0-9]{1,3}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?"
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0}

Duration = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 18,
            **rules(
                rule(
                    f"self.matches('^{_DURATION}$') && size(self) > 0 && duration(self) >= duration('1s')"
                    " && duration(self) <= duration('720h')",
                    "must be a duration from 1s to 720h in hours, minutes and seconds, such as 90s, 30m or 1h30m",
                )
            ),
        }
    ),
]
"""A length of time, as Go writes it in whole hours, minutes and seconds."""


def seconds(duration: str) -> float:
    """The seconds of a Duration; what the schema refuses makes a ValueError."""
    parts = re.findall(r"([0-9]+)([hms])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"not a duration: {duration!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
