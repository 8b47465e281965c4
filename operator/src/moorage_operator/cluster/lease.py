"""Decides which replica of the operator works: a Lease of coordination.k8s.io, by the rules of client-go.

The holder renews every RENEW_SECONDS. Others count, by their own monotonic clock, how long the Lease has not changed,
and take it after LEASE_SECONDS; so clocks of different machines are never compared. A holder that could not renew for
RENEW_DEADLINE stops working before anyone else may begin.
https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from moorage_operator.cluster.client import Kube
from moorage_operator.cluster.errors import ApiError, ConflictError, NotFoundError, UnavailableError
from moorage_operator.cluster.kinds import LEASES

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15
RENEW_DEADLINE: Final = 10.0
RENEW_SECONDS: Final = 2.0
RELEASE_SECONDS: Final = 5.0
"""How long a process that ends tries to give the Lease up: it is killed some seconds later."""


class Elector:
    """Takes and keeps the Lease `name` in `namespace` for `identity`."""

    def __init__(
        self, kube: Kube, namespace: str, name: str, identity: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._namespace, self._name, self._identity = namespace, name, identity
        self._clock = clock
        self._seen: tuple[Any, ...] = ()
        self._seen_at = clock()
        self.contact_at: float | None = None
        """When the API server last answered about the Lease; None before."""
        self.leading = False
        self._renewed_at = clock()
        self._pause = 0.0
        """Seconds until the next attempt: none before the first one, and what a refusal asks for also after a loss."""

    @property
    def remaining(self) -> float:
        """For how many seconds we may still write; 0 or less when we may not.

        True after a pause of the process too, before `hold` has noticed it.
        """
        return RENEW_DEADLINE - (self._clock() - self._renewed_at) if self.leading else 0.0

    @property
    def valid(self) -> bool:
        """Whether we may write now."""
        return self.remaining > 0

    async def acquire(self) -> None:
        """Returns once the Lease is ours."""
        taken = False
        while not taken:
            await asyncio.sleep(self._pause)  # the Lease is not ours to be notified of
            taken = await self._try()
        self.leading = True
        log.info("leading", extra={"identity": self._identity})

    async def hold(self) -> None:
        """Renews until it cannot any more, and returns then; begin again with `acquire`."""
        while self.valid and not self.held_by_other:
            await asyncio.sleep(self._pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_DEADLINE):
                    await self._try()
        self.leading = False
        log.warning("not leading any more: the lease could not be renewed", extra={"identity": self._identity})

    async def release(self) -> None:
        """Gives the Lease up, so that another replica need not wait for it to expire."""
        if not self.leading:
            return
        self.leading = False
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._give_up()
        except (ApiError, UnavailableError, TimeoutError) as error:
            log.warning("the lease could not be released; it expires by itself", extra={"error": repr(error)})

    async def _give_up(self) -> None:
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        if lease["spec"].get("holderIdentity") == self._identity:
            spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            await self._kube.replace(LEASES, {**_typed(lease), "spec": spec})

    async def _try(self) -> bool:
        # Others count from the renewal, which may be as old as our request: an answer may be late, or read late.
        began, self._pause = self._clock(), RENEW_SECONDS
        try:
            taken = await self._take()
        except ConflictError:
            return False  # another replica was faster
        except (ApiError, UnavailableError) as error:
            log.warning("the lease cannot be read or written", extra={"error": str(error)})
            self._pause = max(RENEW_SECONDS, error.retry_after)
            return False
        if taken:
            self._renewed_at = began
        return taken

    async def _take(self) -> bool:
        try:
            lease = await self._kube.get(LEASES, self._namespace, self._name)
        except NotFoundError:
            metadata = {"name": self._name, "namespace": self._namespace}
            lease = await self._kube.create(LEASES, {**_TYPE, "metadata": metadata, "spec": self._claim({})})
            self._note(lease)
            return True
        self._note(lease)
        spec = lease.get("spec", {})
        duration = spec.get("leaseDurationSeconds", LEASE_SECONDS)
        if self.held_by_other and self._clock() - self._seen_at < duration:
            return False
        self._note(await self._kube.replace(LEASES, {**_typed(lease), "spec": self._claim(spec)}))
        return True

    @property
    def held_by_other(self) -> bool:
        """Whether the Lease was another replica's when it was last read."""
        holder = self._seen[0] if self._seen else None
        return bool(holder) and holder != self._identity

    def _note(self, lease: dict[str, Any]) -> None:
        spec = lease.get("spec", {})
        record = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        self.contact_at = self._clock()
        if record != self._seen:
            self._seen, self._seen_at = record, self.contact_at

    def _claim(self, spec: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = spec.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": spec.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if ours or not spec else 1),
        }


_TYPE: Final = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


def _typed(lease: dict[str, Any]) -> dict[str, Any]:
    return {**_TYPE, "metadata": lease["metadata"]}
