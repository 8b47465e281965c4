"""Downloads from S3, as moto's server imitates it: listing, signing, what is missing, what is not allowed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.bucket import Bucket
from moorage_runtime.fetch.folder import MARKER
from moorage_runtime.fetch.http import PassingFailure
from moorage_runtime.fetch.plan import Remote
from moorage_runtime.fetch.run import Fetch
from moorage_runtime.fetch.secrets import Secrets
from moorage_runtime.fetch.settings import FetchSettings
from moorage_runtime.fetch.source import BucketAddress

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED", "AWS_SECRET_ACCESS_KEY": "planted-secret-key", "AWS_REGION": "eu-west-1"}
OBJECTS = {
    "llama/config.json": b"{}",
    "llama/model.safetensors": b"weights" * 50_000,
    "llama/pytorch_model.bin": b"pickle",
    "llama/folder/": b"",
    "llamas/model.safetensors": b"of another model",
    "q4.gguf": b"GGUF" * 1000,
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server with one bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for key, body in OBJECTS.items():
        client.put_object(Bucket="models", Key=key, Body=body)
    yield url
    client.close()
    server.stop()


@pytest.fixture
def secrets(endpoint: str) -> Secrets:
    """The keys of the Secret."""
    return Secrets({**KEYS, "AWS_ENDPOINT_URL": endpoint}, "s3-keys")


def fetch(uri: str, folder: Path, secrets: Secrets, **settings: Any) -> dict[str, bytes]:
    """What a download has put into the folder."""
    fixed = {"model_source": uri, "model_folder": folder, "model_backend": "transformers"}
    Fetch(FetchSettings(**{**fixed, **settings}), secrets, sleep=lambda _: None).run()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARKER}


def failure(uri: str, folder: Path, secrets: Secrets, **settings: Any) -> tuple[LoadError, str]:
    """Why it fails."""
    with pytest.raises(LoadFailure) as found:
        fetch(uri, folder, secrets, **settings)
    return found.value.termination.reason, found.value.termination.message


@pytest.mark.parametrize("uri", ["s3://models/llama", "s3://models/llama/"])
def test_what_lies_below_a_prefix_is_fetched_but_no_neighbour_and_no_pickle(
    uri: str, tmp_path: Path, secrets: Secrets
) -> None:
    found = fetch(uri, tmp_path, secrets)
    assert found == {name: OBJECTS[f"llama/{name}"] for name in ("config.json", "model.safetensors")}


def test_one_object_is_fetched(tmp_path: Path, secrets: Secrets) -> None:
    found = fetch("s3://models/q4.gguf", tmp_path, secrets, model_backend="llamacpp")
    assert found == {"q4.gguf": OBJECTS["q4.gguf"]}


def test_a_whole_bucket_can_be_meant(tmp_path: Path, secrets: Secrets) -> None:
    found = fetch("s3://models", tmp_path, secrets, model_backend="llamacpp")
    assert found == {"q4.gguf": OBJECTS["q4.gguf"]}


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/x", "s3://models/nothing", "s3://models/none.gguf"])
def test_what_is_not_there(uri: str, tmp_path: Path, secrets: Secrets) -> None:
    assert failure(uri, tmp_path, secrets)[0] is LoadError.MODEL_NOT_FOUND


def test_an_object_that_has_changed_since_it_was_listed_is_not_taken(tmp_path: Path, secrets: Secrets) -> None:
    bucket = Bucket(BucketAddress("models", "llama"), secrets, 5)
    listed = {remote.name: remote for remote in bucket.list().files}
    assert listed["config.json"].size == 2
    asked = bucket.asked(listed["config.json"])
    assert asked.headers == {"If-Match": listed["config.json"].version}
    assert not asked.follow
    assert "was changed" in str(bucket.refusal(412, {}, "config.json"))


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("AccessDenied", 403, LoadError.DOWNLOAD_UNAUTHORIZED),
        ("InvalidAccessKeyId", 403, LoadError.DOWNLOAD_UNAUTHORIZED),
        ("ExpiredToken", 400, LoadError.DOWNLOAD_UNAUTHORIZED),
        ("PermanentRedirect", 301, LoadError.DOWNLOAD_FAILED),
        ("AuthorizationHeaderMalformed", 400, LoadError.DOWNLOAD_FAILED),
    ],
)
def test_refusals_name_the_keys_to_set(secrets: Secrets, code: str, status: int, reason: LoadError) -> None:
    bucket = Bucket(BucketAddress("models", "llama"), secrets, 5)
    refusal = bucket._refusal(status, code, "").termination
    assert refusal.reason is reason
    key = "AWS_ACCESS_KEY_ID" if reason is LoadError.DOWNLOAD_UNAUTHORIZED else "AWS_REGION"
    assert f"key {key} of Secret s3-keys" in refusal.message


def test_without_keys_nothing_is_signed_and_none_are_looked_for(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # boto3 would take these, and after them ask the node's metadata service.
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=AKIAOTHER\naws_secret_access_key=other\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    bucket = Bucket(BucketAddress("models", ""), Secrets({"AWS_ENDPOINT_URL": endpoint}), 5)
    assert "?" not in bucket.asked(Remote(name="q4.gguf")).url
    assert "set key" not in bucket.refusal(403, {}, "x").termination.message
    assert "AWS_ACCESS_KEY_ID" in bucket.refusal(403, {}, "x").termination.message
    assert len(bucket.list().files) == len(OBJECTS) - 1


def test_a_server_that_is_not_there_may_come_back() -> None:
    secrets = Secrets({**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    with pytest.raises(PassingFailure, match="EndpointConnectionError"):
        Bucket(BucketAddress("models", ""), secrets, 5).list()


@pytest.mark.parametrize(
    "endpoint",
    ["http://minio.example", "https://user:planted-pass@minio.example", "ftp://x.example", "https://h.example/path/x"],
)
def test_an_endpoint_without_tls_or_with_a_user_is_refused(endpoint: str, tmp_path: Path) -> None:
    reason, message = failure("s3://models/x", tmp_path, Secrets({**KEYS, "AWS_ENDPOINT_URL": endpoint}, "s3-keys"))
    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "key AWS_ENDPOINT_URL of Secret s3-keys" in message
    assert "planted" not in message


def test_a_signed_address_is_in_no_message(tmp_path: Path, secrets: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "moorage_runtime"):
        fetch("s3://models/llama", tmp_path, secrets)
        _, message = failure("s3://models/llama", tmp_path / "b", secrets, model_sha256="0" * 64)
    told = message + "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for planted in ("X-Amz", "AKIAPLANTED", "planted-secret-key"):
        assert planted not in told
