"""Image archives: what is written can be read, and is the same for the same binary."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from hack.cluster.host.images import stored_images
from hack.cluster.oci import archived_images, single_binary_archive


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "pause"
    path.write_bytes(b"\x7fELF")
    return path


def test_every_blob_has_the_name_of_its_content(binary: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(single_binary_archive("localhost/a:b", binary))) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member)
            assert content is not None
            if member.name.startswith("blobs/"):
                assert hashlib.sha256(content.read()).hexdigest() == Path(member.name).name


def test_an_archive_tells_its_reference_and_digest(binary: Path, tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    archive.write_bytes(single_binary_archive("localhost/a:b", binary))
    ((name, digest),) = archived_images(archive).items()
    assert name == "localhost/a:b"
    assert digest.startswith("sha256:")


def test_the_same_binary_gives_the_same_archive(binary: Path) -> None:
    assert single_binary_archive("localhost/a:b", binary) == single_binary_archive("localhost/a:b", binary)


def test_an_image_without_a_reference_is_left_out(tmp_path: Path) -> None:
    content = json.dumps({"manifests": [{"digest": "sha256:1"}]}).encode()
    member = tarfile.TarInfo("index.json")
    member.size = len(content)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(member, io.BytesIO(content))
    assert archived_images(tmp_path / "x.tar") == {}


def test_containerds_listing_is_read() -> None:
    listing = (
        "REF                   TYPE                                       DIGEST     SIZE    PLATFORMS   LABELS\n"
        "localhost/pause:local application/vnd.oci.image.manifest.v1+json sha256:12  1.4 MiB linux/amd64 -\n"
    )
    assert stored_images(listing) == {"localhost/pause:local": "sha256:12"}
    assert stored_images("") == {}
