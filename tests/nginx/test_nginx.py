"""The real nginx, where `make test` has what it said once: it is asked again, and put behind the gateway."""

from pathlib import Path

import pytest

from tests.nginx.ask import ask_all
from tests.nginx.server import nginx
from tests.unit.gateway.odd_requests import STREAMS
from tests.unit.gateway.strict_servers import by_nginx
from tests.unit.gateway.support import MODEL, running
from tests.unit.gateway.test_smuggling import IMPATIENT, answered


async def test_nginx_still_says_what_is_written() -> None:
    """If not, look at the difference, then write it down anew: python -m tests.nginx.ask."""
    assert await ask_all() == by_nginx()


@pytest.mark.timeout(300)
async def test_nginx_behind_the_gateway_takes_what_the_gateway_took(tmp_path: Path) -> None:
    async with nginx(tmp_path) as server, running(limits=IMPATIENT) as (bed, _):
        backends = bed.table.backends(MODEL)
        backends.update([("127.0.0.1", server.port)])
        for name, content in STREAMS.items():
            server.behind.seen.clear()
            bed.taken.clear()
            replies = await answered(bed, content)
            passed = [one for one, reply in zip(bed.taken, replies, strict=False) if reply.body == b"{}"]
            assert [(one.path, one.body) for one in passed] == [(one.target, one.body) for one in server.behind.seen], (
                name
            )
