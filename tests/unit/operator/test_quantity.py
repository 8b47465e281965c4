"""Kubernetes quantities: the number that each form says."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.desired.drift import quantity
from tests.unit.operator.support import thorough

DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1000m"),
        ("0.1", "100m"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("0.5Gi", "512Mi"),
        ("1e3", "1k"),
        ("1E3", "1k"),
        ("1E", "1e18"),
        ("12e-1", "1200m"),
        ("100n", "0.1u"),
        ("+1", "1"),
        (".5", "500m"),
        ("5.", "5"),
        ("-1.5", "-1500m"),
    ],
)
def test_forms_of_the_same_number(one: str, other: str) -> None:
    assert quantity(one) == quantity(other)


@thorough
@given(st.integers(0, 10**15), st.sampled_from(sorted(DECIMAL)))
def test_a_decimal_suffix_is_a_power_of_ten(number: int, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == Decimal(number).scaleb(DECIMAL[suffix])
    assert quantity(f"{number}{suffix}") == quantity(f"{number}e{DECIMAL[suffix]}")


@thorough
@given(st.integers(0, 10**9), st.sampled_from(sorted(BINARY)))
def test_a_binary_suffix_is_a_power_of_1024(number: int, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == number * 1024 ** BINARY[suffix]


@thorough
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_different_numbers_are_different_quantities(one: int, other: int) -> None:
    assert (quantity(f"{one}m") == quantity(f"{other}m")) == (one == other)
    assert (quantity(f"{one}Ki") < quantity(f"{other}Ki")) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Gi", "16GB", "16 Gi", " 1", "1 ", "1\n", "1,5", "one", "1mm", "1K", "1ki", "--1", "1.2.3", "0x10"),
        *("NaN", "inf", "Infinity", "1_000", "\u0661", "e3", "1e", "."),
    ],
)
def test_text_that_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)
