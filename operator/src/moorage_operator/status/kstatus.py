"""The conditions by which Flux, and whatever else goes by kstatus, understands a model: present only while True. Pure.

By its rules Ready=False is "in progress" for ever, and Ready=True is done, also while a change is being rolled out.
kubernetes-sigs/cli-utils, pkg/kstatus/README.md
"""

from typing import Final

from moorage_operator.api.conditions import Reason
from moorage_operator.status.conditions import is_stuck, progressing
from moorage_operator.status.view import ConditionValue, View

TRIED_AGAIN: Final = {
    *(Reason.IMAGE_PULL_FAILED, Reason.DOWNLOAD_FAILED, Reason.CRASH_LOOPING, Reason.VOLUME_UNAVAILABLE),
}
"""What often passes by itself: a rollout is not given up for it before the Deployment's own deadline."""


def reconciling(view: View) -> ConditionValue | None:
    """Whether a change of the spec is being rolled out, or tried again."""
    state, reason, message = progressing(view)
    tried_again = is_stuck(view) and not view.stopped and not _is_stalled(view)
    return ("True", reason, message) if state == "True" or tried_again else None


def stalled(view: View) -> ConditionValue | None:
    """Whether a change of the spec waits for somebody to correct something."""
    if not _is_stalled(view):
        return None
    _, reason, message = progressing(view)
    return "True", reason, message


def _is_stalled(view: View) -> bool:
    if view.stopped or not is_stuck(view):
        return False
    late = view.seen.deployment is not None and view.seen.deployment.stuck is not None
    return view.seen.blocked is not None or late or view.problem is None or view.problem.reason not in TRIED_AGAIN
