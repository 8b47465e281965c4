"""S3 and what speaks like it: boto3 lists and signs, the bytes come by the same road as all others.

Credentials are those of the Secret, or none: boto3's own search (files, the node's metadata service) is shut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.http import Asked, PassingFailure
from moorage_runtime.fetch.origin import Listing
from moorage_runtime.fetch.plan import MAX_LISTED, Remote
from moorage_runtime.fetch.secrets import Secrets
from moorage_runtime.fetch.source import BucketAddress, is_loopback

DEFAULT_REGION: Final = "us-east-1"
_SIGNED_SECONDS: Final = 3600
_WRONG_KEYS: Final = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "403", "401"}
)
_MISSING: Final = frozenset({"NoSuchBucket", "NoSuchKey", "404"})
_ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")


class Bucket:
    """One bucket, or a part of it."""

    def __init__(self, address: BucketAddress, secrets: Secrets, seconds: float) -> None:
        """Make a client; nothing is asked yet. `seconds` is how long an answer may take."""
        self.where = f"s3://{address.bucket}/{address.prefix}"
        self._address = address
        self._secrets = secrets
        self._signed = bool(secrets.get("AWS_ACCESS_KEY_ID"))
        self._client = _client(secrets, seconds, signed=self._signed)

    def list(self) -> Listing:
        """List the objects below the prefix, or the one that it names."""
        import botocore.exceptions as boto

        try:
            files = tuple(self._objects())
        except boto.ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = str(error.response.get("Error", {}).get("Code", ""))
            if status == 429 or status >= 500 or code in ("SlowDown", "RequestTimeout"):
                raise PassingFailure(f"{self.where} cannot be listed: {status} {code[:50]}") from error
            raise self._refusal(status, code, "") from error
        except (boto.SSLError, boto.ParamValidationError) as error:
            text = f"{self.where} cannot be listed: {type(error).__name__}"
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, text) from error
        except (boto.HTTPClientError, boto.BotoCoreError) as error:
            raise PassingFailure(f"{self.where} cannot be listed: {type(error).__name__}") from error
        if not files:
            raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{self.where} holds no objects")
        return Listing(files)

    def asked(self, remote: Remote) -> Asked:
        """Sign a request for an object; it holds while the object is the one that was listed."""
        prefix = self._address.prefix
        key = f"{prefix}/{remote.name}" if self._address.is_folder and prefix else prefix or remote.name
        where = {"Bucket": self._address.bucket, "Key": key}
        url: str = self._client.generate_presigned_url("get_object", Params=where, ExpiresIn=_SIGNED_SECONDS)
        same = {"If-Match": remote.version} if remote.version else {}
        return Asked(url=url, headers=same, follow=False)

    def refusal(self, status: int, headers: Mapping[str, str], name: str) -> LoadFailure:
        """Say what an answer means."""
        return self._refusal(status, "", name)

    def _objects(self) -> Iterator[Remote]:
        prefix, is_folder = self._address.prefix, self._address.is_folder
        start = f"{prefix}/" if is_folder and prefix else prefix
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._address.bucket, Prefix=start)
        count = 0
        for page in pages:
            for found in page.get("Contents", ()):
                key = str(found["Key"])
                name = key.removeprefix(start) if is_folder else key.rpartition("/")[2]
                if (not is_folder and key != prefix) or not name or name.endswith("/"):
                    continue
                count += 1
                if count > MAX_LISTED:
                    raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, f"{self.where} holds more than a model")
                yield Remote(name=name, size=int(found["Size"]), version=str(found.get("ETag", "")))

    def _refusal(self, status: int, code: str, name: str) -> LoadFailure:
        what = f"{name} in {self.where}" if name else self.where
        if code in _MISSING or status == 404:
            return LoadFailure(LoadError.MODEL_NOT_FOUND, f"there is no {what}")
        if status in (301, 307, 400) and code not in _WRONG_KEYS:
            place = self._secrets.place("AWS_REGION")
            text = f"{what} answers {status}: the bucket may be in another region than {place} says"
            return LoadFailure(LoadError.DOWNLOAD_FAILED, text)
        if code in _WRONG_KEYS or status in (401, 403):
            keys = f"{self._secrets.place('AWS_ACCESS_KEY_ID')} and AWS_SECRET_ACCESS_KEY"
            how = f"the keys in {keys} are wrong, expired, or may not read it" if self._signed else f"set {keys}"
            return LoadFailure(LoadError.DOWNLOAD_UNAUTHORIZED, f"{what} is not shown ({code or status}): {how}")
        if status == 412:
            return LoadFailure(LoadError.DOWNLOAD_FAILED, f"{what} was changed while it was fetched")
        return LoadFailure(LoadError.DOWNLOAD_FAILED, f"{what} answers {status} {code}".rstrip())


def _client(secrets: Secrets, seconds: float, *, signed: bool) -> Any:
    """Make boto3's client with our credentials, or none, and nothing that it would look for by itself."""
    try:
        import boto3
        import botocore.config
        import botocore.session
    except ImportError as error:
        text = "s3:// needs boto3, which this image does not have: install moorage-runtime[s3]"
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, text) from error
    endpoint = _endpoint(secrets)
    core = botocore.session.Session()
    for name in ("config_file", "credentials_file"):
        core.set_config_variable(name, "/dev/null")
    config = botocore.config.Config(
        connect_timeout=10,
        read_timeout=seconds,
        retries={"total_max_attempts": 1},
        signature_version="s3v4" if signed else botocore.UNSIGNED,
        s3={"addressing_style": "path" if endpoint else "auto"},
        proxies={},
    )
    keys = {
        "aws_access_key_id": secrets.get("AWS_ACCESS_KEY_ID") or "none",
        "aws_secret_access_key": secrets.get("AWS_SECRET_ACCESS_KEY") or "none",
        "aws_session_token": secrets.get("AWS_SESSION_TOKEN") or None,
    }
    session = boto3.Session(botocore_session=core)
    region = secrets.get("AWS_REGION") or DEFAULT_REGION
    try:
        return session.client("s3", region_name=region, endpoint_url=endpoint, config=config, **keys)
    except ValueError as error:
        text = f"{secrets.place('AWS_REGION')} or {secrets.place('AWS_ENDPOINT_URL')} is not valid"
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, text) from error


def _endpoint(secrets: Secrets) -> str | None:
    endpoint = secrets.get("AWS_ENDPOINT_URL")
    if endpoint and not (_ENDPOINT.fullmatch(endpoint) and (endpoint.startswith("https://") or is_loopback(endpoint))):
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"{secrets.place('AWS_ENDPOINT_URL')} must be https://HOST or https://HOST:PORT, without a user or a path",
        )
    return endpoint or None


def is_local(secrets: Secrets) -> bool:
    """Tell whether the endpoint is on this machine, as in tests."""
    endpoint = secrets.get("AWS_ENDPOINT_URL")
    return bool(endpoint) and is_loopback(f"{urlsplit(endpoint).scheme}://{urlsplit(endpoint).netloc}")
