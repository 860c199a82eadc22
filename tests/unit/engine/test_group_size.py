"""How many instances of one request a quota allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.engine.groups import affordable
from virtflow.errors import QuotaExceeded
from virtflow.persistence.quotas import Usage

UNLIMITED = {"instances": Usage(5, 5, -1), "vcpus": Usage(9, 9, -1)}


def test_without_limits_as_many_as_are_wanted() -> None:
    assert affordable(UNLIMITED, {"instances": 1, "vcpus": 4}, 1, 7) == 7


def test_the_tightest_resource_decides() -> None:
    usage = {"instances": Usage(1, 1, 10), "vcpus": Usage(2, 1, 12)}
    assert affordable(usage, {"instances": 1, "vcpus": 4}, 1, 7) == 2


def test_less_than_the_least_is_refused_with_what_it_would_take() -> None:
    usage = {"instances": Usage(1, 1, 10), "vcpus": Usage(2, 1, 12)}
    with pytest.raises(QuotaExceeded, match="quota exceeded for vcpus: 12 requested, 9 of 12 left"):
        affordable(usage, {"instances": 1, "vcpus": 4}, 3, 7)


def test_a_limit_below_what_is_used_leaves_nothing_and_not_less() -> None:
    with pytest.raises(QuotaExceeded, match="1 requested, 0 of 2 left"):
        affordable({"instances": Usage(5, 0, 2)}, {"instances": 1}, 1, 1)


def test_what_costs_nothing_is_not_limited() -> None:
    assert affordable({"disk_gib": Usage(5, 0, 5)}, {"disk_gib": 0}, 1, 3) == 3


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_the_count_is_the_largest_that_fits(used: int, limit: int, amount: int, least: int, more: int) -> None:
    usage, most = {"vcpus": Usage(used, 0, limit)}, least + more
    try:
        count = affordable(usage, {"vcpus": amount}, least, most)
    except QuotaExceeded:
        count = 0
        assert used + least * amount > limit or used > limit
    else:
        assert least <= count <= most
        assert used + count * amount <= limit
        assert count == most or used + (count + 1) * amount > limit
