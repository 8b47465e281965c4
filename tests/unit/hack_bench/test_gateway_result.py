"""The figures of the gateway's benchmark: ratios of medians, and notes where something is missing."""

import pytest

from hack.bench._gateway_load import Requests, Streams, body_of
from hack.bench._gateway_result import GOALS, Figures, notes_of, tables, values_of
from hack.bench._harness import Samples


def requests(rate: float, p50: float = 100.0) -> Requests:
    return Requests(requests=int(rate), seconds=1.0, p50=p50, p99=2 * p50, errors=0, cpu=10.0)


def streams(rate: float, gap: float, rss: int = 0, errors: int = 0) -> Streams:
    return Streams(1000, errors, 512, 10, rate, gap, gap, gap, rss=rss)


def measured() -> Figures:
    return Figures(
        many={
            "ours": [requests(900), requests(600), requests(700)],
            "nginx": [requests(1000), requests(1000)],
            "vllm-router": [requests(200)],
            "aiohttp": [requests(100)],
        },
        alone={"ours": [requests(1, 120)], "nginx": [requests(1, 100)]},
        prompts={"ours": [requests(150)], "nginx": [requests(100)], "nginx, tuned": [requests(300)]},
        streams={
            "direct": [streams(50_000, 10)],
            "ours": [streams(49_500, 12, rss=2**25), streams(49_500, 12, rss=2**26)],
            "nginx": [streams(49_000, 10)],
        },
        crowds={5000: streams(1, 1, rss=2**27, errors=2)},
        ready=Samples("ours", [400.0, 500.0, 450.0]),
    )


def test_values_are_ratios_of_medians_and_the_most_memory() -> None:
    assert values_of(measured()) == {
        "rps_vs_nginx": 0.7,
        "rps_vs_vllm_router": 3.5,
        "rps_vs_aiohttp": 7.0,
        "p50_c1_vs_nginx": 1.2,
        "p99_c1_vs_nginx": 1.2,
        "sse_512_vs_direct": 0.99,
        "sse_gap_p99_vs_nginx": 1.2,
        "prompts_200k_vs_nginx": 1.5,
        "rss_mb_512_streams": 64.0,
        "errors_5000_streams": 2,
        "ready_ms": 450,
    }
    assert GOALS.keys() == values_of(measured()).keys()


def test_what_was_not_measured_has_no_value_and_a_note() -> None:
    values = values_of(Figures())
    assert set(values.values()) == {None}
    assert set(notes_of(Figures(), values)) == set(values)


def test_the_tuned_rival_is_told_in_a_note() -> None:
    figures = measured()
    assert "0.5" in notes_of(figures, values_of(figures))["prompts_200k_vs_nginx"]


def test_tables_have_a_row_for_each_side() -> None:
    for header, rows in tables(measured()):
        assert {len(row) for row in rows} == {len(header)}


@pytest.mark.parametrize("size", [1000, 200_000])
def test_bodies_are_about_as_long_as_asked(size: int) -> None:
    assert abs(len(body_of(size)) - size) < 50
