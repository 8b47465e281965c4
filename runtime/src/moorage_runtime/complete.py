"""Whether transformers found all weights of a model: for those that it did not find it makes up random numbers."""

from collections.abc import Mapping
from typing import Any

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

NAMED = 5


def check_complete(loading: Mapping[str, Any]) -> None:
    """Raise LoadFailure where weights were missing; `loading` is what `output_loading_info` makes transformers tell."""
    if missing := sorted(loading["missing_keys"]):
        some = ", ".join(missing[:NAMED])
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"weights are missing: {some} ({len(missing)} in all)")
