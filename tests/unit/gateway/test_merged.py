"""Several workers as one: sums of metrics, and how models are used through all of them."""

from prometheus_client.core import GaugeMetricFamily

from moorage_common.demand import News, Use
from moorage_gateway.merged import SharedModel, SharedUse, merge_metrics

FIRST = """# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{model="a/b",status="200"} 3.0
requests_total{model="a/b",status="503"} 1.0
# HELP seconds Times.
# TYPE seconds histogram
seconds_bucket{le="0.1",model="a/b"} 2.0
seconds_bucket{le="+Inf",model="a/b"} 4.0
seconds_count{model="a/b"} 4.0
seconds_sum{model="a/b"} 1.5
# HELP held Those that wait.
# TYPE held gauge
held{model="a/b"} 2.0
# HELP certificate_expiry_timestamp_seconds When.
# TYPE certificate_expiry_timestamp_seconds gauge
certificate_expiry_timestamp_seconds 2000.0
"""
SECOND = """# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{model="a/b",status="200"} 4.0
requests_total{model="a/c",status="200"} 1.0
# HELP seconds Times.
# TYPE seconds histogram
seconds_bucket{le="0.1",model="a/b"} 1.0
seconds_bucket{le="+Inf",model="a/b"} 1.0
seconds_count{model="a/b"} 1.0
seconds_sum{model="a/b"} 0.05
# HELP held Those that wait.
# TYPE held gauge
held{model="a/b"} 5.0
# HELP certificate_expiry_timestamp_seconds When.
# TYPE certificate_expiry_timestamp_seconds gauge
certificate_expiry_timestamp_seconds 1000.0
"""


def merged(*pages: str) -> dict[str, float]:
    text = merge_metrics(pages, [GaugeMetricFamily("workers", "Processes.", value=len(pages))]).decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_metrics_are_sums_and_of_moments_the_earliest() -> None:
    assert merged(FIRST, SECOND) == {
        'requests_total{model="a/b",status="200"}': 7.0,
        'requests_total{model="a/b",status="503"}': 1.0,
        'requests_total{model="a/c",status="200"}': 1.0,
        'seconds_bucket{le="0.1",model="a/b"}': 3.0,
        'seconds_bucket{le="+Inf",model="a/b"}': 5.0,
        'seconds_count{model="a/b"}': 5.0,
        'seconds_sum{model="a/b"}': 1.55,
        'held{model="a/b"}': 7.0,
        "certificate_expiry_timestamp_seconds": 1000.0,
        "workers": 2.0,
    }


def test_one_page_stays_as_it_is() -> None:
    text = merge_metrics([FIRST]).decode()
    assert sorted(text.splitlines()) == sorted(FIRST.splitlines())


class Bed:
    """What two workers tell, and what was made of it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seen: list[tuple[str, int, int, bool, bool]] = []
        self.use = SharedUse(2, lambda: self.now, self._changed)
        self.models: dict[str, SharedModel] = {}

    def _changed(self, model: SharedModel, urgent: bool) -> None:
        self.models[model.name] = model
        self.seen.append((model.name, model.in_flight, len(model), model.state.scaled, urgent))

    @property
    def last(self) -> tuple[str, int, int, bool, bool]:
        return self.seen[-1]


def test_use_is_the_sum_over_all_workers() -> None:
    bed = Bed()
    bed.use.news(0, News("x", {"a/b": Use(in_flight=2)}))
    assert not bed.use.complete
    bed.use.news(1, News("y", {"a/b": Use(in_flight=3, idle=0.5)}))
    assert bed.use.complete
    assert bed.last == ("a/b", 5, 0, True, False)
    bed.use.news(0, News(models={"a/b": Use(idle=0.0)}))
    assert bed.last == ("a/b", 3, 0, True, False)


def test_whoever_begins_to_wait_is_urgent_once() -> None:
    bed = Bed()
    for worker in (0, 1):
        bed.use.news(worker, News("x", {"a/b": Use()}))
    bed.use.news(1, News(models={"a/b": Use(held=1)}))
    assert bed.last == ("a/b", 0, 1, True, True)
    bed.use.news(0, News(models={"a/b": Use(held=1)}))
    assert bed.last == ("a/b", 0, 2, True, False)


def test_the_last_use_is_the_latest_of_all() -> None:
    bed = Bed()
    bed.use.news(0, News("x", {"a/b": Use()}))
    assert bed.models["a/b"].last_use is None
    bed.use.news(1, News("y", {"a/b": Use(idle=30.0)}))
    assert bed.models["a/b"].last_use == 70.0
    bed.use.news(0, News(models={"a/b": Use(idle=50.0)}))
    assert bed.models["a/b"].last_use == 70.0


def test_a_model_goes_when_no_worker_serves_it() -> None:
    bed = Bed()
    for worker in (0, 1):
        bed.use.news(worker, News("x", {"a/b": Use()}))
    bed.use.news(0, News(models={"a/b": None}))
    assert bed.last == ("a/b", 0, 0, True, False)
    bed.use.news(1, News("started anew", {}))
    assert bed.last == ("a/b", 0, 0, False, False)


def test_a_worker_that_dies_has_no_requests_and_its_models_were_just_used() -> None:
    bed = Bed()
    bed.use.news(0, News("x", {"a/b": Use(in_flight=2)}))
    bed.use.news(1, News("y", {"a/b": Use(in_flight=1)}))
    bed.now = 200.0
    bed.use.lost(0)
    assert bed.last == ("a/b", 1, 0, True, False)
    assert bed.models["a/b"].last_use == 200.0
