"""What the pods of a model have reported of their engines and downloads. Pure."""

from collections.abc import Mapping

from moorage_common.download import Download
from moorage_common.facts import Health
from moorage_common.shape import Shape
from moorage_operator.status.observe import PodState


class Reports:
    """By pod uid; None for a pod that did not answer. What a pod reports that is not among `pods` is not kept."""

    def __init__(self, pods: Mapping[str, PodState]) -> None:
        self._pods = pods
        self.facts: dict[str, Health | None] = {}
        self.shapes: dict[str, Shape | None] = {}
        self.downloads: dict[str, Download] = {}

    def put_facts(self, uid: str, health: Health | None) -> None:
        """Keeps the facts of an engine, until its pod changes or is gone."""
        if uid in self._pods:
            self.facts[uid] = health

    def drop_facts(self, uid: str) -> None:
        """Forgets the facts of an engine, because the state of its pod has changed."""
        self.facts.pop(uid, None)

    def put_shape(self, uid: str, shape: Shape | None) -> None:
        """Keeps the shape of the model, until the pod is gone."""
        if uid in self._pods:
            self.shapes[uid] = shape

    def drop_missing_shape(self, uid: str) -> None:
        """Forgets that a pod did not report its shape: its container is about to restart."""
        if self.shapes.get(uid, ...) is None:
            del self.shapes[uid]

    def put_download(self, uid: str, download: Download) -> None:
        """Keeps the progress of a download, until the pod is gone or ends its download."""
        if uid in self._pods and self._pods[uid].downloading:
            self.downloads[uid] = download

    def forget(self, uid: str) -> None:
        """Drops all that a pod has reported."""
        for kept in (self.facts, self.shapes, self.downloads):
            kept.pop(uid, None)
