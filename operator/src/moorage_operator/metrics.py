"""The operator's own metrics, served as `/metrics` beside the probes; names follow Prometheus' conventions."""

from typing import Final

from prometheus_client import Counter

PREEMPTIONS: Final = Counter(
    "moorage_preemptions_total", "Pods of a model that lost their place to a higher priority.", ["namespace", "name"]
)
