"""What a runtime says of itself: the answer of `/health/detailed` and the termination message of a failed load.

The runtime writes these, the operator reads them; both use these types, so that the two cannot drift apart.
"""

from enum import StrEnum
from typing import Final

import msgspec

from moorage_common.download import Download
from moorage_common.shape import Shape

CPU: Final = "cpu"
"""The device of an engine that runs on no accelerator."""

TERMINATION_MESSAGE_LIMIT: Final = 4096
"""Bytes of a termination message that the kubelet keeps (Kubernetes: 4096 a container)."""


class LoadError(StrEnum):
    """Why a model could not be loaded. The values are reasons of the condition ModelLoaded."""

    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_FILE_INVALID = "ModelFileInvalid"
    UNSAFE_WEIGHTS = "UnsafeWeights"
    REMOTE_CODE_REQUIRED = "RemoteCodeRequired"
    OUT_OF_MEMORY = "OutOfMemory"
    INVALID_MODEL_CONFIG = "InvalidModelConfig"
    ENGINE_FAILED = "EngineFailed"
    DOWNLOAD_FAILED = "DownloadFailed"
    DOWNLOAD_UNAUTHORIZED = "DownloadUnauthorized"
    DOWNLOAD_DISK_FULL = "DownloadDiskFull"
    CHECKSUM_MISMATCH = "ChecksumMismatch"


class Phase(StrEnum):
    """Where a runtime is on its way to answering."""

    STARTING = "starting"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    READY = "ready"
    UNLOADED = "unloaded"
    """The engine has ended after an idle time; the next request starts it again, and waits for it."""
    DRAINING = "draining"
    FAILED = "failed"


class Termination(msgspec.Struct, frozen=True, omit_defaults=True):
    """The termination message: one JSON object, `{"reason": …, "message": …}`.

    With it goes the shape of the model where its files could be read: a load that fails at once leaves no time to ask.
    """

    reason: LoadError
    message: str
    shape: Shape | None = None

    def encode(self) -> bytes:
        """The message as JSON of at most TERMINATION_MESSAGE_LIMIT bytes; a long text is cut at its end."""
        text = self.message
        while len(encoded := self._encoded(text)) > TERMINATION_MESSAGE_LIMIT:
            text = text[: len(text) * 3 // 4] + "…"
        return encoded

    def _encoded(self, text: str) -> bytes:
        shape = msgspec.structs.replace(self.shape, tensor_bytes={}) if self.shape else None
        return msgspec.json.encode(Termination(self.reason, text, shape))

    @classmethod
    def decode(cls, text: str) -> "Termination | None":
        """The message in `text`, or None when a container died without writing one."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # Whoever may run a pod may write this: half a character, or brackets 4,000 deep.
            return None


class EngineFacts(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What is known of the loaded model; one start of an engine always tells the same. Sizes are bytes; a field that is
    not known is None."""

    engine: str
    engine_version: str | None = None
    device: str | None = None
    """What the engine really runs on: `cpu`, or its own name of the accelerator, such as `CUDA0` or `cuda`."""

    quantization: str | None = None
    """What the weights really have, in the words of spec.quantization; of weights that are not quantized, `none` or the
    type of their numbers."""

    dtype: str | None = None
    """The type of the numbers that are not quantized, such as `bfloat16`, where the engine says it."""

    context_length: int | None = None
    weights_bytes: int | None = None
    """What the weights take: in memory where the engine says it, else in the files."""

    memory_bytes: int | None = None
    """What the engine held right after it had answered its first request: of the accelerator's memory if it runs on
    one, else resident memory of its process."""


class Health(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The part of `/health/detailed` that the operator reads; unknown fields are ignored when decoding."""

    status: Phase
    facts: EngineFacts | None = None
    shape: Shape | None = None
    """Known as soon as the files have been read, long before the model is loaded."""

    download: Download | None = None
    """How far the files are, while they are fetched."""

    unload_after: float | None = None
    """Seconds without a request after which the model is unloaded; None where it stays."""
