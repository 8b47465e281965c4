"""The paths of requests: no name that somebody else has chosen makes another path."""

import pytest

from moorage_gateway.kube.errors import InvalidNameError
from moorage_gateway.kube.resources import INFERENCE_MODELS, PODS


def test_a_path_is_made_of_namespace_name_and_subresource() -> None:
    assert (
        INFERENCE_MODELS.path("team-a", "tiny-abc")
        == "/apis/moorage.dev/v1alpha1/namespaces/team-a/inferencemodels/tiny-abc"
    )
    assert PODS.path("team-a", "tiny.1", "status") == "/api/v1/namespaces/team-a/pods/tiny.1/status"
    assert PODS.path(None) == "/api/v1/pods"


@pytest.mark.parametrize(
    "name", ["../../../version", "..", "a/b", "a?watch=true", "a%2Fb", "a#b", "A", "", "a\n", "a" * 254, "-a"]
)
def test_a_name_that_no_object_has_makes_no_path(name: str) -> None:
    if name:
        with pytest.raises(InvalidNameError):
            INFERENCE_MODELS.path("team-a", name)
    with pytest.raises(InvalidNameError):
        INFERENCE_MODELS.path(name or " ", "tiny")
