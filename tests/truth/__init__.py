"""Whether the statuses tell the truth: what each field should say, computed from the cluster's objects alone.

No code of the operator has a part in it. `Truth(api).hold()` after a step fails with every field that stays false;
`watching(api)` around steps records for how long each field was false.
"""

from tests.truth.live import Lie, Truth, busy_factor, watching

__all__ = ["Lie", "Truth", "busy_factor", "watching"]
