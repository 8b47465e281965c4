"""Models that a pod fetches: the container, what is read of it, whom the prober asks, what a status says."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_common.download import Download
from moorage_common.facts import Health, LoadError, Phase, Termination
from moorage_operator.api.conditions import Reason
from moorage_operator.api.source import FILE_NAME, HF_ADDRESS, HTTPS_ADDRESS, S3_ADDRESS, Source
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.cluster.facts import LATEST, RETRY_LOADING, SOONEST
from moorage_operator.desired import desired
from moorage_operator.desired.fetch import KEYS
from moorage_operator.status import status
from moorage_operator.status.observe import Observation, PodState, pod_state
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.names import is_allowed
from moorage_runtime.fetch.secrets import HUB_KEYS, S3_KEYS
from moorage_runtime.fetch.settings import read_fetch_settings
from moorage_runtime.fetch.source import parse
from tests.golden.cases import Case, cases
from tests.unit.operator.situations import deployment, placed
from tests.unit.operator.support import CONFIG, Object, by_type, live_pod, model
from tests.unit.operator.test_facts import TINY, Bed
from tests.unit.operator.virtual_time import in_virtual_time

HF = "hf://Qwen/Qwen2-7B@" + "a" * 40
NOW = "2026-01-02T05:00:00Z"
CONTAINERS = ("initContainers", "containers")
FAR = Download(13_207_024_435, 15_247_133_900, 210_000_000, 9, 1, 4)


def pod_spec(of: InferenceModel) -> Object:
    """The pod that is wanted."""
    found: Object = desired(of, CONFIG)[1]["spec"]["template"]["spec"]
    return found


# -- what is wanted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["oci://localhost/x", "pvc://models/x.gguf"])
def test_what_is_mounted_is_not_fetched(uri: str) -> None:
    assert "initContainers" not in pod_spec(model(source={"uri": uri}))


@pytest.mark.parametrize(
    ("uri", "keys"), [(HF, HUB_KEYS), ("s3://models/x", S3_KEYS), ("https://files.example/x.gguf", ())]
)
def test_bad_input_23_only_the_keys_of_its_kind_reach_the_fetching_container_and_none_the_engine(
    uri: str, keys: tuple[str, ...]
) -> None:
    spec = pod_spec(model(source={"uri": uri, "secretName": "theirs"}))
    (fetching,), (engine,) = spec["initContainers"], spec["containers"]
    taken = [entry for entry in fetching["env"] if "valueFrom" in entry]
    assert {entry["name"] for entry in taken} == set(keys) == set(KEYS.get(uri.partition(":")[0], ()))
    for entry in taken:
        key = {"name": "theirs", "key": entry["name"], "optional": True}
        assert entry["valueFrom"] == {"secretKeyRef": key}
    assert all(set(entry) == {"name", "value"} for entry in engine["env"])
    assert "theirs" not in str(engine) + str(spec["volumes"])
    assert not [container for container in (fetching, engine) if "envFrom" in container]


def test_the_fetching_container_is_as_restricted_as_the_engines_and_writes_where_that_reads() -> None:
    spec = pod_spec(model(source={"uri": HF}))
    (fetching,), (engine,) = spec["initContainers"], spec["containers"]
    assert fetching["securityContext"] == engine["securityContext"]
    assert fetching["image"] == engine["image"]
    assert fetching["args"] == ["fetch"]
    volumes = [container["volumeMounts"][0] for container in (fetching, engine)]
    assert volumes == [
        {"name": "model", "mountPath": "/models"},
        {"name": "model", "mountPath": "/models", "readOnly": True},
    ]
    assert "limits" in fetching["resources"]
    assert not [name for name in fetching["resources"]["requests"] if "/" in name], "it takes no GPU of its own"


@pytest.mark.parametrize(
    ("resources", "requests", "limits"),
    [
        ({}, {"cpu": "1", "memory": "2Gi"}, {"memory": "2Gi"}),
        ({"cpu": "10m", "memory": "64Mi"}, {"cpu": "100m", "memory": "256Mi"}, {"memory": "256Mi"}),
        ({"cpu": 2, "cpuLimit": 4}, {"cpu": "2", "memory": "2Gi"}, {"memory": "2Gi", "cpu": "4"}),
        ({"cpu": "10m", "cpuLimit": "50m"}, {"cpu": "50m", "memory": "2Gi"}, {"memory": "2Gi", "cpu": "50m"}),
    ],
)
def test_cluster_07_08_the_fetching_container_suits_the_rules_that_the_engines_container_suits(
    resources: dict[str, Any], requests: Object, limits: Object
) -> None:
    ((fetching,), (engine,)) = (pod_spec(model(source={"uri": HF}, resources=resources))[kind] for kind in CONTAINERS)
    assert fetching["resources"] == {"requests": requests, "limits": limits}
    assert ("cpu" in engine["resources"]["limits"]) is ("cpuLimit" in resources)


def test_every_engine_runs_offline() -> None:
    for uri in ("oci://localhost/x", HF):
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in pod_spec(model(source={"uri": uri}))["containers"][0]["env"]


@pytest.mark.parametrize(
    ("size", "limit", "asked"), [(None, "100Gi", None), ("20Gi", "20Gi", "20Gi"), (1 << 30, str(1 << 30), str(1 << 30))]
)
def test_room_is_bounded_and_a_node_must_have_what_was_asked_for(
    size: str | int | None, limit: str, asked: str | None
) -> None:
    spec = pod_spec(model(source={"uri": HF, **({"size": size} if size else {})}))
    assert spec["volumes"][0] == {"name": "model", "emptyDir": {"sizeLimit": limit}}
    assert spec["initContainers"][0]["resources"]["requests"].get("ephemeral-storage") == asked


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.model.spec.source.is_fetched], ids=lambda case: case.folder.name
)
def test_what_the_operator_sets_is_what_the_fetcher_reads(case: Case) -> None:
    (fetching,) = case.manifests()[1]["spec"]["template"]["spec"]["initContainers"]
    values = {entry["name"]: entry["value"] for entry in fetching["env"] if "value" in entry}
    settings = read_fetch_settings(values)
    unread = {name for name in values if not hasattr(settings, name.lower())}
    assert unread <= {"HOME", "SECRET_NAME"}
    source = case.model.spec.source
    assert settings.model_source == source.uri
    assert settings.model_sha256 == (source.sha256 or "")
    assert settings.model_files == tuple(sorted(source.files or ()))
    assert settings.model_size_limit == (20 << 30 if source.size else 100 << 30)
    parse(settings.model_source)


@given(st.from_regex(HF_ADDRESS) | st.from_regex(HTTPS_ADDRESS) | st.from_regex(S3_ADDRESS))
def test_an_address_that_the_api_server_takes_is_one_that_the_fetcher_reads(uri: str) -> None:
    uri = uri.rstrip("\n")
    if ".." in uri or not uri.isascii():
        return
    try:
        parse(uri)
    except LoadFailure:
        assert re.search(r":(6553[6-9]|65[6-9]|6[6-9]|[7-9]\d{4})", uri), uri


@given(st.from_regex(f"^({FILE_NAME})$"))
def test_a_file_that_the_api_server_takes_is_one_that_the_fetcher_takes(name: str) -> None:
    name = name.rstrip("\n")
    if ".." not in name and len(name) <= 255 and name.isascii():
        assert is_allowed(name) or max(map(len, name.split("/"))) > 200 or re.search(r"[ .]/", name), name


def test_other_files_of_the_same_address_are_other_files() -> None:
    one, other = Source(uri=HF, files=["a.gguf"]), Source(uri=HF, files=["b.gguf"])
    assert len({Source(uri=HF).identity, one.identity, other.identity}) == 3
    types = [model(source={"uri": HF}, quantization=type_).spec.files for type_ in (None, "q4_0", "q8_0")]
    assert len(set(types)) == 3


# -- what is read of a pod ---------------------------------------------------------------------------------------------


def fetching_pod(state: Object, **fields: Any) -> Object:
    """A pod whose fetching container is in a state."""
    pod = live_pod(container={"state": {"waiting": {"reason": "PodInitializing"}}})
    container = {"name": "fetch", "state": state, "restartCount": 0, **fields}
    pod["status"]["initContainerStatuses"] = [{"name": "injected", "state": {"running": {}}}, container]
    return pod


def ended(reason: LoadError) -> Object:
    """How the container ended."""
    message = Termination(reason, "because").encode().decode()
    return {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}


def test_a_pod_whose_fetching_container_runs_downloads() -> None:
    seen = pod_state(fetching_pod({"running": {}}, started=True))
    assert (seen.downloading, seen.running, seen.problem) == (True, False, None)
    assert not pod_state(fetching_pod({"terminated": {"exitCode": 0}})).downloading
    assert not pod_state(live_pod()).downloading


@pytest.mark.parametrize("reason", LoadError)
@pytest.mark.parametrize("where", ["state", "lastState"])
def test_what_ends_the_fetching_container_is_the_problem(reason: LoadError, where: str) -> None:
    states = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}} | {where: ended(reason)}
    problem = pod_state(fetching_pod(**states)).problem
    assert problem is not None
    assert (problem.reason, problem.message) == (Reason(reason.value), "because")


def test_an_image_that_cannot_be_pulled_is_told_of_the_fetching_container_too() -> None:
    seen = pod_state(fetching_pod({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}))
    assert seen.problem is not None
    assert seen.problem.reason is Reason.IMAGE_PULL_FAILED


def test_once_it_is_done_its_failures_are_forgotten() -> None:
    assert pod_state(fetching_pod({"terminated": {"exitCode": 0}}, restartCount=3)).problem is None


def test_a_new_attempt_is_explained_by_the_last_failure_until_bytes_come() -> None:
    raw = fetching_pod({"running": {}}, started=True, lastState=ended(LoadError.DOWNLOAD_FAILED))
    pod = pod_state(raw)
    assert told(pod)["ModelLoaded"]["reason"] == told(pod, Download(5, 10, 0))["Ready"]["reason"] == "DownloadFailed"
    assert told(pod, FAR)["ModelLoaded"]["reason"] == "Downloading"
    assert told(pod, FAR)["Ready"]["reason"] == "Starting"


# -- what a status says ------------------------------------------------------------------------------------------------


def told(pod: PodState, download: Download | None = None, before: Object | None = None, ask: bool = True) -> Object:
    """The conditions of a model with one pod."""
    downloads = {pod.uid: download} if download else {}
    seen = Observation(deployment(available_replicas=0), (pod,), {} if ask else None, downloads=downloads)
    return by_type(status(model(source={"uri": HF}, status=before), seen, NOW))


FETCHING = placed(downloading=True)


def test_the_status_says_how_far_a_download_is() -> None:
    found = told(FETCHING, FAR)
    loaded, is_ready = found["ModelLoaded"], found["Ready"]
    assert (loaded["status"], loaded["reason"]) == ("False", "Downloading")
    assert loaded["message"] == "Downloading the model: 12.3 of 14.2 GiB, 210 MB/s, 9 s left"
    assert (is_ready["reason"], is_ready["message"]) == ("Starting", loaded["message"])


@pytest.mark.parametrize("ask", [True, False])
def test_without_numbers_it_is_said_all_the_same(ask: bool) -> None:
    found = told(FETCHING, ask=ask)["ModelLoaded"]
    assert (found["reason"], found["message"]) == ("Downloading", "Downloading the model")


def test_an_operator_that_has_just_started_takes_nothing_back() -> None:
    before = {"conditions": [{**told(FETCHING, FAR)["ModelLoaded"]}]}
    assert told(FETCHING, before=before)["ModelLoaded"]["message"] == f"Downloading the model: {FAR.words()}"
    assert told(FETCHING, before=before, ask=False)["ModelLoaded"]["message"] == "Downloading the model"


def test_of_several_pods_the_one_that_is_farthest_speaks() -> None:
    pods = (placed("a", downloading=True), placed("b", downloading=True))
    downloads = {"a": Download(1, 10), "b": Download(7, 10)}
    seen = Observation(deployment(2, available_replicas=0), pods, {}, downloads=downloads)
    found = by_type(status(model(source={"uri": HF}, replicas=2), seen, NOW))
    assert found["ModelLoaded"]["message"] == "Downloading the model: 7 of 10 B"


def test_a_pod_that_loads_is_past_downloading() -> None:
    assert told(placed(running=True))["ModelLoaded"]["reason"] == "Loading"


# -- whom the prober asks ----------------------------------------------------------------------------------------------


def fetch_status(state: Object) -> Object:
    """The status of the fetching container, for a pod of the prober's bed."""
    return {"name": "fetch", "state": state, "restartCount": 0}


class FetchBed(Bed):
    """A prober, and a pod that fetches until the test says otherwise."""

    def fetches(self, *, running: bool = True) -> None:
        """News of the pod."""
        self.version += 1
        pod = live_pod("a", version=self.version)
        state: Object = {"running": {}} if running else {"terminated": {"exitCode": 0}}
        pod["status"]["initContainerStatuses"] = [fetch_status(state)]
        self.store.put("Pod", pod)
        self.prober.schedule(TINY, self.store.pods(TINY))


@in_virtual_time
async def test_a_pod_that_fetches_is_asked_again_and_again_and_each_news_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = FetchBed(monkeypatch)
    bed.answers = [Health(Phase.DOWNLOADING, download=Download(n, 100, 1, 20)) for n in range(1, 100)]
    bed.fetches()
    await bed.work(SOONEST * 12 + 1)
    assert len(bed.asked) == 13
    assert bed.store.reports(TINY).downloads == {"uid-of-a": Download(13, 100, 1, 20)}
    assert await bed.news() == 1
    bed.fetches(running=False)
    assert bed.store.reports(TINY).downloads == {}
    await bed.work(600)
    assert len(bed.asked) == 13


@in_virtual_time
async def test_a_long_download_is_asked_for_less_often_and_one_that_stands_still_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = FetchBed(monkeypatch)
    bed.answer = Health(Phase.DOWNLOADING, download=Download(1, 100, 1, 36_000))
    bed.fetches()
    await bed.work()
    assert await bed.news() == 1
    await bed.work(LATEST * 10 + 1)
    assert len(bed.asked) == 11
    assert await bed.news() == 0


@in_virtual_time
async def test_a_pod_that_does_not_tell_is_asked_ever_later_while_it_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = FetchBed(monkeypatch)
    bed.answer = None
    bed.fetches()
    await bed.work(600)
    assert len(RETRY_LOADING) < len(bed.asked) <= len(RETRY_LOADING) + 600 / RETRY_LOADING[-1]
    bed.answer = Health(Phase.DOWNLOADING, download=FAR)
    await bed.work(60)
    assert bed.store.reports(TINY).downloads == {"uid-of-a": FAR}


def test_what_a_pod_says_that_does_not_fetch_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = FetchBed(monkeypatch)
    bed.store.put("Pod", live_pod("a"))
    bed.store.reports(TINY).put_download("uid-of-a", FAR)
    bed.store.reports(TINY).put_download("uid-of-stranger", FAR)
    assert bed.store.reports(TINY).downloads == {}
