"""InferenceModels for tests."""

from typing import Any

from tests.support.api import Object


def model(name: str = "tiny", **spec: Any) -> Object:
    """A valid InferenceModel; `spec` overrides fields of its spec, None removes one."""
    fields = {"framework": "llamacpp", "source": {"uri": "oci://localhost/models/smollm2:135m-q4"}, **spec}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


def alias(name: str = "prod", /, **weights: int | None) -> dict[str, Any]:
    """A ModelAlias; None leaves a weight out."""
    entries = [{"name": one} | ({} if weight is None else {"weight": weight}) for one, weight in weights.items()]
    return {
        **{"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelAlias", "metadata": {"name": name}},
        "spec": {"models": entries},
    }
