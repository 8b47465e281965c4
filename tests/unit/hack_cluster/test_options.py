"""Options are refused where they are given, with the value that is wrong."""

from __future__ import annotations

import pytest

from hack.cluster.errors import ClusterError
from hack.cluster.options import ClusterOptions, fake_node_sizes


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a-", "a" * 21, "../x", "a/b"])
def test_a_name_that_could_not_be_a_folder_or_a_table_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cluster name"):
        ClusterOptions(name=name)


@pytest.mark.parametrize("name", ["a", "moorage", "e2e-1", "a" * 20])
def test_plain_names_are_accepted(name: str) -> None:
    assert ClusterOptions(name=name).name == name


def test_negative_gpus_are_refused() -> None:
    with pytest.raises(ClusterError, match="gpus is -1"):
        ClusterOptions(gpus=-1)


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ClusterError, match="'docker'"):
        ClusterOptions(provider="docker")


@pytest.mark.parametrize(("gpus", "sizes"), [(0, []), (1, [1]), (8, [8]), (9, [8, 1]), (24, [8, 8, 8])])
def test_gpus_are_spread_over_nodes_of_eight(gpus: int, sizes: list[int]) -> None:
    assert fake_node_sizes(gpus) == sizes
