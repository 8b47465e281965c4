"""The secrets of a download: read from the environment, shown nowhere.

They come from a Secret, as variables of the fetching container only. Whatever this process writes is looked through for
them (`Secrets.hide`), though nothing is meant to write them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

HUB_KEYS: Final = ("HF_TOKEN",)
S3_KEYS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
)
_SHORTEST: Final = 6
"""Shorter values are no secrets, and would be found in every text."""

HIDDEN: Final = "[hidden]"


@dataclass(frozen=True)
class Secrets:
    """Values by name; `secret_name` is that of the Secret, for messages."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_name: str = ""

    def get(self, key: str) -> str:
        """Give a value; empty where it is not set. Raise LoadFailure, without it, if it cannot be one."""
        value = self.values.get(key, "").strip()
        if any(not "!" <= character <= "~" for character in value):
            raise LoadFailure(
                LoadError.DOWNLOAD_UNAUTHORIZED,
                f"{self.place(key)} has spaces, line breaks or other characters that it cannot have",
            )
        return value

    def place(self, key: str) -> str:
        """Say where a key has to be set."""
        if self.secret_name:
            return f"key {key} of Secret {self.secret_name}"
        return f"{key} (a key of the Secret that spec.source.secretName names, or an environment variable)"

    def hide(self, text: str) -> str:
        """Give `text` without any of the values."""
        for key in sorted(self.values, key=lambda key: -len(self.values[key])):
            value = self.values[key].strip()
            if len(value) >= _SHORTEST and key not in ("AWS_REGION", "AWS_ENDPOINT_URL"):
                # As it is, as JSON writes it, and as an address does.
                for form in (value, json.dumps(value)[1:-1], quote(value, safe="")):
                    text = text.replace(form, HIDDEN)
        return text


def read_secrets(environment: Mapping[str, str]) -> Secrets:
    """Take the secrets out of the environment."""
    values = {key: environment[key] for key in (*HUB_KEYS, *S3_KEYS) if environment.get(key, "").strip()}
    return Secrets(values, environment.get("SECRET_NAME", ""))
