"""Models and aliases as files: what of a live object is somebody's will, and can be applied elsewhere. Pure.

The API server and those who work for it write most of an object: uid, versions, times, who owns which field, the
status. An export has none of that, so that the same file makes the same model again, on any cluster.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from moorage_common.labels import API_GROUP, IDEMPOTENCY_BODY_ANNOTATION, IDEMPOTENCY_LABEL, RESTARTED_AT_ANNOTATION

OURS: Final = frozenset({IDEMPOTENCY_LABEL, IDEMPOTENCY_BODY_ANNOTATION, RESTARTED_AT_ANNOTATION})
"""Notes of the management API that say something of a request, not of the model."""

_LINE_ENDS: Final = "\x85\u2028\u2029"

_OF_TOOLS: Final = ("kubectl.kubernetes.io/", "deployment.kubernetes.io/")


def clean(model: Mapping[str, Any], kind: str = "InferenceModel") -> dict[str, Any]:
    """The object as somebody would write it; `kind` is that of one which does not say it, as in a list."""
    metadata = model["metadata"]
    kept: dict[str, Any] = {"name": metadata["name"], "namespace": metadata["namespace"]}
    for part in ("labels", "annotations"):
        if theirs := {name: text for name, text in (metadata.get(part) or {}).items() if _is_theirs(name)}:
            kept[part] = dict(sorted(theirs.items()))
    spec = model["spec"]
    if spec.get("scaling"):  # the default that the API server has written beside it, which says nothing
        spec = {name: value for name, value in spec.items() if name != "replicas"}
    return {
        "apiVersion": model.get("apiVersion", f"{API_GROUP}/v1alpha1"),
        "kind": model.get("kind", kind),
        "metadata": kept,
        "spec": spec,
    }


def documents(models: Iterable[Mapping[str, Any]]) -> str:
    """Objects as YAML, a document each."""
    import yaml  # not every part has it

    class Dumper(yaml.SafeDumper):
        """Writes texts with Unicode's own ends of lines between double quotes: else they would come back as blanks."""

        def represent_text(self, text: str) -> yaml.ScalarNode:
            style = '"' if any(end in text for end in _LINE_ENDS) else None
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, Dumper.represent_text)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "explicit_start": True}
    text: str = yaml.dump_all(models, Dumper=Dumper, **options)
    return text


def _is_theirs(name: str) -> bool:
    return name not in OURS and not name.startswith(_OF_TOOLS)
