"""The checker of the truth itself, on a live cluster: it must find what is false, and for how long it was."""

from signal import SIGCONT, SIGSTOP

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, is_ready
from tests.support.models import model
from tests.support.operator import OperatorProcess
from tests.truth import Truth


def test_a_lie_is_found_for_as_long_as_it_lasts(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(model("tiny"))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    truth.hold()
    truth.kept()
    truth.forget()
    # Whoever may write a status could lie while the operator sleeps.
    operator.signal(SIGSTOP)
    api.patch("InferenceModel", "tiny", {"status": {"readyReplicas": 3, "url": "http://elsewhere.example"}}, "status")
    with pytest.raises(AssertionError, match=r"url says http://elsewhere.example; true is http://tiny"):
        truth.hold()
    operator.signal(SIGCONT)
    truth.hold()
    with pytest.raises(AssertionError, match="readyReplicas says 3; true is 1"):
        truth.kept(within=0.5)
    assert {"url", "readyReplicas"} <= {lie.falsehood.field for lie in truth.lies if lie.seconds > 1}


def test_while_the_api_server_is_away_nothing_is_judged(
    api: Api, operator: OperatorProcess, truth: Truth, cluster: Cluster
) -> None:
    api.create(model("tiny"))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    truth.hold()
    truth.forget()
    cluster.kill("kube-apiserver")
    cluster.start("kube-apiserver")
    cluster.wait_until_ready()
    api.patch("InferenceModel", "tiny", {"spec": {"replicas": 2}})
    api.wait("InferenceModel", "tiny", lambda im: (im or {})["status"]["readyReplicas"] == 2, what="2 replicas")
    truth.hold()
