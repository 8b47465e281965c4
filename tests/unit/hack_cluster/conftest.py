"""A plan of a cluster that never runs, in folders of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.cluster.host.addresses import LOOPBACK
from hack.cluster.host.control_plane import Plan
from hack.cluster.host.layout import Endpoints, Layout
from hack.cluster.toolchain.catalog import ALL_GROUPS, binaries_of


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout("test", tmp_path / "state" / "test", tmp_path / "run" / "test")


@pytest.fixture
def full_plan(layout: Layout, tmp_path: Path) -> Plan:
    endpoints = Endpoints(1, "10.243.1.1", 6443, 20001, 20002, 20003, 20004, 20005, 20006, 20007, 20008)
    return Plan(layout, binaries_of(ALL_GROUPS, tmp_path / "bin"), control_plane_only=False, endpoints=endpoints)


@pytest.fixture
def api_plan(layout: Layout, tmp_path: Path) -> Plan:
    endpoints = Endpoints(0, LOOPBACK, 20000, 20001, 20002, 20003, 20004, 20005, 20006, 20007, 20008)
    return Plan(layout, binaries_of(ALL_GROUPS, tmp_path / "bin"), control_plane_only=True, endpoints=endpoints)
