"""One line in the log for each write: who, what, on which object, and how it ended. Never what was in the body."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from moorage_gateway.manage.callers import Caller
from moorage_gateway.manage.problems import as_problem

log = logging.getLogger("moorage.audit")


@asynccontextmanager
async def audited(request: Request, caller: Caller, verb: str, model: str) -> AsyncIterator[None]:
    """Log the block as one write of `caller`; whose token it is, is asked first: what nobody sent is not done."""
    who = await caller.name()
    outcome, status = "done", 0
    try:
        yield
    except Exception as error:
        problem = as_problem(error)
        outcome, status = (problem.code, problem.status) if problem is not None else ("internal_error", 500)
        raise
    finally:
        extra = {
            "who": who,
            "verb": verb,
            "object": f"inferencemodels/{model}",
            "outcome": outcome,
            "request_id": request.headers.get("x-request-id", "")[:128],
        }
        log.info("audit", extra={**extra, "status": status} if status else extra)
