"""The types, reasons and phases of a status: closed lists, so that people and programs can rely on them.

Every value has its heading in `docs/conditions.md`; a test compares the two.
"""

from dataclasses import dataclass
from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of an InferenceModel; True is the good state up to Accelerated, but for Progressing and Preempted.

    Reconciling and Stalled are for tools that go by kstatus: absent unless True.
    """

    READY = "Ready"
    SCHEDULED = "Scheduled"
    MODEL_LOADED = "ModelLoaded"
    PROGRESSING = "Progressing"
    PREEMPTED = "Preempted"
    FITS_GPU = "FitsGPU"
    ACCELERATED = "Accelerated"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Reason(StrEnum):
    """Why a condition is as it is."""

    SERVING = "Serving"
    SLEEPING = "Sleeping"
    NO_GATEWAY = "NoGateway"
    STOPPED = "Stopped"
    STOPPING = "Stopping"
    STARTING = "Starting"
    SCHEDULED = "Scheduled"
    WAITING_FOR_GPU = "WaitingForGPU"
    UNSCHEDULABLE = "Unschedulable"
    NO_SUCH_RESOURCE = "NoSuchResource"
    VOLUME_NOT_FOUND = "VolumeNotFound"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_SECURITY_DENIED = "PodSecurityDenied"
    LIMIT_RANGE_VIOLATED = "LimitRangeViolated"
    PODS_REFUSED = "PodsRefused"
    FORBIDDEN = "Forbidden"
    DOWNLOADING = "Downloading"
    LOADED = "Loaded"
    LOADING = "Loading"
    UNLOADED = "Unloaded"
    FACTS_UNAVAILABLE = "FactsUnavailable"
    ROLLING_OUT = "RollingOut"
    MAKING_ROOM = "MakingRoom"
    COMPLETE = "Complete"
    ROLLOUT_STUCK = "RolloutStuck"
    PREEMPTED = "Preempted"
    NEVER = "Never"
    RECOVERED = "Recovered"
    FITS = "Fits"
    INSUFFICIENT_GPU_MEMORY = "InsufficientGPUMemory"
    ACCELERATED = "Accelerated"
    CPU_FALLBACK = "CPUFallback"
    PRECISION_FALLBACK = "PrecisionFallback"
    NAME_CONFLICT = "NameConflict"
    NO_IMAGE_FOR_DEVICE = "NoImageForDevice"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    CRASH_LOOPING = "CrashLooping"
    # What a runtime says when a model cannot be loaded; the values of moorage_common.facts.LoadError.
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


@dataclass(frozen=True)
class Problem:
    """What is wrong, in a word and in a sentence."""

    reason: Reason
    message: str


class Phase(StrEnum):
    """The conditions in one word."""

    STOPPED = "Stopped"
    STOPPING = "Stopping"
    SLEEPING = "Sleeping"
    WAITING_FOR_RESOURCES = "WaitingForResources"
    STARTING = "Starting"
    RUNNING = "Running"
    FAILED = "Failed"
