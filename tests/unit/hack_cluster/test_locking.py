"""Who comes second takes another one, where there are several."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.cluster.errors import ClusterError
from hack.cluster.locking import first_unlocked


def test_cluster_17_the_second_takes_the_next_and_the_third_the_first_that_is_free_again(tmp_path: Path) -> None:
    paths = [tmp_path / "locks" / name for name in ("1", "2")]
    with first_unlocked(paths) as first:
        assert first == paths[0]
        with first_unlocked(paths) as second:
            assert second == paths[1]
            with pytest.raises(ClusterError, match="hold all of"), first_unlocked(paths):
                pass
    with first_unlocked(paths) as third:
        assert third == paths[0]
