"""Measures the last start of a pod by the times that the API server and the kubelet have written. Pure.

queued: made → given a node; download: while the download container ran; image: the rest until the container of the
runtime started, which is pulling images and mounting; load: from there until Ready. All in whole seconds, as are the
times of the API.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from moorage_operator.desired.fetch import FETCH_CONTAINER


class Start(NamedTuple):
    """One start of a container that became ready: `began` is when it started (RFC 3339), the rest seconds."""

    began: str
    queued: int
    image: int
    load: int
    download: int | None = None

    @property
    def total(self) -> int:
        """From the making of the pod, or of a container that was started again from its start, until it was ready."""
        return self.queued + self.image + self.load + (self.download or 0)

    def phases(self) -> dict[str, int]:
        """The seconds by phase, in their order; without a download where there was none."""
        download = {} if self.download is None else {"download": self.download}
        return {
            "queued": self.queued,
            "image": self.image,
            **download,
            "load": self.load,
            "total": self.total,
        }


def start_of(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Start | None:
    """The start of `container` (its status) in a pod that is ready; None when a time is missing."""
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    began = container.get("state", {}).get("running", {}).get("startedAt")
    times = [
        _seconds(pod["metadata"].get("creationTimestamp")),
        _seconds(conditions.get("PodScheduled", {}).get("lastTransitionTime")),
        _seconds(began),
        _seconds(conditions.get("Ready", {}).get("lastTransitionTime")),
    ]
    made, scheduled, started, ready = times
    if made is None or scheduled is None or started is None or ready is None:
        return None
    # Three clocks have written these; none of them makes a phase last less than nothing.
    scheduled = max(made, scheduled)
    started = max(scheduled, started)
    load = max(0, ready - started)
    if container.get("restartCount"):
        return Start(began, 0, 0, load)  # it neither waited for a node nor for an image
    download = _download(status)
    image = started - scheduled
    if download is None:
        return Start(began, scheduled - made, image, load)
    download = min(download, image)
    return Start(began, scheduled - made, image - download, load, download)


def _download(status: Mapping[str, Any]) -> int | None:
    containers = status.get("initContainerStatuses") or ()
    ended = next((c.get("state", {}).get("terminated") for c in containers if c.get("name") == FETCH_CONTAINER), None)
    if not ended:
        return None
    began, end = _seconds(ended.get("startedAt")), _seconds(ended.get("finishedAt"))
    return None if began is None or end is None else max(0, end - began)


def _seconds(time: str | None) -> int | None:
    """A time of the API as seconds since the epoch."""
    if not time:
        return None
    try:
        return int(datetime.fromisoformat(time).timestamp())
    except ValueError:
        return None
