from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.scheduler.policies import AFFINITY, ANTI_AFFINITY, POLICIES, Placed, objection

ME = Placed("me", "h1", 5)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_first_member_may_be_anywhere(policy: str) -> None:
    assert objection(policy, ME, []) is None
    assert objection(policy, ME, [ME]) is None


def test_affinity_wants_the_host_of_the_others() -> None:
    assert objection(AFFINITY, ME, [Placed("a", "h1", 1), ME]) is None
    assert objection(AFFINITY, ME, [Placed("a", "h1", 1), Placed("b", "h2", 9)]) == "instance b is on h2"


def test_anti_affinity_wants_a_host_without_the_others() -> None:
    assert objection(ANTI_AFFINITY, ME, [Placed("a", "h2", 1), Placed("b", "h3", 1)]) is None
    assert objection(ANTI_AFFINITY, ME, [Placed("a", "h1", 1)]) == "instance a is on it"


def test_of_two_claims_on_one_host_only_the_later_yields() -> None:
    later = Placed("late", "h1", 6)
    assert objection(ANTI_AFFINITY, ME, [ME, later]) is None
    assert objection(ANTI_AFFINITY, later, [ME, later]) == "instance me is on it"


def test_a_member_that_is_being_moved_is_on_both_of_its_hosts() -> None:
    moving = [Placed("a", "h1", 1), Placed("a", "h2", 2)]
    assert objection(ANTI_AFFINITY, ME, moving) == "instance a is on it"
    assert objection(AFFINITY, ME, moving) == "instance a is on h2"


def test_a_policy_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="'nearby' is none of affinity, anti-affinity"):
        objection("nearby", ME, [])


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["h1", "h2", "h3"])), unique_by=lambda pair: pair[0], max_size=8
    )
)
def test_however_members_race_for_hosts_anti_affinity_leaves_one_on_each(claims: list[tuple[int, str]]) -> None:
    placed = [Placed(f"i{generation}", host, generation) for generation, host in claims]
    stay = [each for each in placed if objection(ANTI_AFFINITY, each, placed) is None]
    assert sorted(each.host for each in stay) == sorted({each.host for each in placed})
