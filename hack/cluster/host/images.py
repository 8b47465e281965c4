"""Puts image archives into the cluster's containerd, where the kubelet finds them without a registry."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hack.cluster.errors import ClusterError
from hack.cluster.host.control_plane import Plan
from hack.cluster.host.node import PAUSE_IMAGE
from hack.cluster.oci import archived_images, single_binary_archive


def load_archives(plan: Plan, archives: list[Path]) -> None:
    """Import the archives whose images containerd does not have yet."""
    present = stored_images(_ctr(plan, "images", "list"))
    for archive in archives:
        images = archived_images(archive)
        if not images or any(present.get(name) != digest for name, digest in images.items()):
            _ctr(plan, "images", "import", str(archive))


def load_pause_image(plan: Plan) -> None:
    """Import the image that holds every pod's namespaces; it is made from our own static binary."""
    archive = plan.layout.root / "pause.tar"
    archive.write_bytes(single_binary_archive(PAUSE_IMAGE, plan.binaries["pause"]))
    load_archives(plan, [archive])


def containerd_answers(plan: Plan) -> bool:
    """Say whether containerd serves its socket."""
    return plan.layout.containerd_socket.exists() and _run_ctr(plan, "version").returncode == 0


def stored_images(listing: str) -> dict[str, str]:
    """Read `ctr images list`: the digest by reference.

    >>> stored_images("REF TYPE DIGEST SIZE\\nlocalhost/a:b application/x sha256:12 3.0 KiB linux/amd64 -\\n")
    {'localhost/a:b': 'sha256:12'}
    """
    rows = [line.split() for line in listing.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


def _ctr(plan: Plan, *arguments: str) -> str:
    done = _run_ctr(plan, *arguments)
    if done.returncode:
        raise ClusterError(f"ctr {' '.join(arguments)} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _run_ctr(plan: Plan, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(plan.binaries["ctr"]),
        f"--address={plan.layout.containerd_socket}",
        "--namespace=k8s.io",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)
