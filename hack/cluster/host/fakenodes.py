"""Keeps the fake GPU nodes of a running cluster as many and as large as was asked for, with a kwok to play them."""

from __future__ import annotations

import re
from collections.abc import Callable

from hack.cluster.host.client import ApiClient, wait_until
from hack.cluster.host.control_plane import Site, kwok
from hack.cluster.host.objects import GPU_RESOURCE, NODES_PATH, fake_node, is_ready
from hack.cluster.host.process import read_records, spawn
from hack.cluster.options import fake_node_sizes

READY_SECONDS = 30.0
_NUMBERED = re.compile(r"gpu-\d+")


def reconcile_fake_nodes(site: Site, client: ApiClient, gpus: int, alive: Callable[[], None]) -> None:
    """Make the numbered fake nodes match `gpus`; nodes that a test added under other names are left alone."""
    wanted = {f"gpu-{number}": size for number, size in enumerate(fake_node_sizes(gpus))}
    listed = client.request("GET", f"{NODES_PATH}?labelSelector=type%3Dkwok")["items"]
    present = {node["metadata"]["name"]: int(node["status"]["capacity"][GPU_RESOURCE]) for node in listed}
    for name in surplus_nodes(wanted, present):
        client.request("DELETE", f"{NODES_PATH}/{name}")
    missing = {name: size for name, size in wanted.items() if present.get(name) != size}
    for name, size in missing.items():
        _create(site, client, name, size)
    for name in wanted:
        _wait_ready(client, name, alive)


def add_fake_node(site: Site, client: ApiClient, name: str, gpus: int) -> None:
    """Add one fake node and wait until it is ready."""
    _create(site, client, name, gpus)
    _wait_ready(client, name, lambda: None)


def surplus_nodes(wanted: dict[str, int], present: dict[str, int]) -> list[str]:
    """Name the numbered nodes that must go: too many, or of another size.

    >>> surplus_nodes({"gpu-0": 8}, {"gpu-0": 4, "gpu-1": 8, "mine": 2})
    ['gpu-0', 'gpu-1']
    """
    return [name for name, size in present.items() if _NUMBERED.fullmatch(name) and wanted.get(name) != size]


def _create(site: Site, client: ApiClient, name: str, gpus: int) -> None:
    running = read_records(site.layout).get("kwok")
    if running is None or not running.is_alive:
        spawn(site.layout, kwok(site))
    client.create(NODES_PATH, fake_node(name, gpus, tainted=not site.control_plane_only))


def _wait_ready(client: ApiClient, name: str, alive: Callable[[], None]) -> None:
    wait_until(
        f"fake node {name} becoming Ready",
        lambda: is_ready(client.request("GET", f"{NODES_PATH}/{name}")),
        timeout=READY_SECONDS,
        alive=alive,
    )
