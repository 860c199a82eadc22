from __future__ import annotations

from functools import partial

import pytest

from virtflow.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from virtflow.persistence.quotas import QuotaRepository

ONE = {"instances": 1, "vcpus": 2, "memory_mib": 512}


@pytest.fixture
def quotas(database):
    return QuotaRepository(database, {"instances": 3, "vcpus": 4})


def states(quotas):
    return {(each.consumer, each.resource): each.state for each in quotas.charges()}


def test_reserved_and_committed_are_counted_apart_against_the_limit(quotas):
    quotas.reserve("u1", "op1", "demo", ONE)
    quotas.reserve("u2", "op2", "demo", ONE)
    quotas.commit("u1", "op1")
    usage = quotas.usage("demo")
    assert usage["vcpus"] == (2, 2, 4)
    assert usage["memory_mib"] == (512, 512, -1)
    assert usage["disk_gib"] == (0, 0, -1)
    assert quotas.usage("other")["vcpus"] == (0, 0, 4)


def test_what_does_not_fit_is_named_with_what_is_left_and_nothing_is_charged(quotas):
    quotas.reserve("u1", "op1", "demo", ONE | {"vcpus": 3})
    with pytest.raises(QuotaExceeded, match="quota exceeded for vcpus: 2 requested, 1 of 4 left"):
        quotas.reserve("u2", "op2", "demo", ONE)
    assert quotas.charges(consumer="u2") == []
    quotas.reserve("u2", "op2", "other", ONE)


def test_an_unlimited_resource_is_never_refused(quotas):
    quotas.reserve("u1", "op1", "demo", {"memory_mib": 2**40})
    assert quotas.usage("demo")["memory_mib"].reserved == 2**40


def test_reserving_again_by_the_same_operation_charges_once(quotas):
    quotas.reserve("u1", "op1", "demo", {"vcpus": 4})
    quotas.reserve("u1", "op1", "demo", {"vcpus": 4})
    assert quotas.usage("demo")["vcpus"] == (0, 4, 4)
    quotas.commit("u1", "op1")
    quotas.reserve("u1", "op1", "demo", {"vcpus": 4})
    assert quotas.usage("demo")["vcpus"] == (4, 0, 4)


def test_another_operation_cannot_charge_the_same_instance(quotas):
    quotas.reserve("u1", "op1", "demo", ONE)
    with pytest.raises(Conflict, match="operation op1 has charged it"):
        quotas.reserve("u1", "op2", "demo", ONE)


def test_commit_and_uncommit_may_run_twice(quotas):
    quotas.reserve("u1", "op1", "demo", {"vcpus": 1})
    for _ in range(2):
        quotas.commit("u1", "op1")
        assert states(quotas) == {("u1", "vcpus"): "COMMITTED"}
    for _ in range(2):
        quotas.uncommit("u1", "op1")
        assert states(quotas) == {("u1", "vcpus"): "RESERVED"}
    quotas.uncommit("absent", "op1")


def test_what_was_never_reserved_cannot_be_committed(quotas):
    quotas.reserve("u1", "op1", "demo", ONE)
    with pytest.raises(NotFound):
        quotas.commit("u1", "op2")
    assert set(states(quotas).values()) == {"RESERVED"}


def test_a_released_reservation_leaves_nothing(quotas):
    quotas.reserve("u1", "op1", "demo", ONE)
    assert not quotas.release("u1", "other")
    assert quotas.release("u1", "op1")
    assert not quotas.release("u1", "op1")
    assert quotas.charges() == []


def test_a_released_charge_frees_its_quota_and_can_be_brought_back(quotas):
    quotas.reserve("u1", "op1", "demo", ONE)
    quotas.commit("u1", "op1")
    quotas.release("u1")
    quotas.release("u1")
    assert quotas.usage("demo")["vcpus"] == (0, 0, 4)
    quotas.recharge("u1")
    quotas.recharge("u1")
    assert quotas.usage("demo")["vcpus"] == (2, 0, 4)


def test_a_charge_whose_quota_was_taken_meanwhile_cannot_be_brought_back(quotas):
    quotas.reserve("u1", "op1", "demo", ONE)
    quotas.commit("u1", "op1")
    quotas.release("u1")
    quotas.reserve("u2", "op2", "demo", {"vcpus": 3})
    with pytest.raises(QuotaExceeded):
        quotas.recharge("u1")
    assert quotas.usage("demo")["vcpus"] == (0, 3, 4)


def test_only_released_charges_are_forgotten(quotas):
    for consumer in ("u1", "u2"):
        quotas.reserve(consumer, "op1", "demo", {"vcpus": 1})
        quotas.commit(consumer, "op1")
    quotas.release("u1")
    quotas.forget("u1")
    quotas.forget("u2")
    assert states(quotas) == {("u2", "vcpus"): "COMMITTED"}
    with pytest.raises(NotFound):
        quotas.recharge("u1")


def test_a_limit_of_a_project_replaces_the_default_and_may_be_unlimited(quotas):
    quotas.set_limit("demo", "vcpus", 1)
    quotas.set_limit("demo", "vcpus", 2)
    assert quotas.usage("demo")["vcpus"].limit == 2
    with pytest.raises(QuotaExceeded, match="3 requested, 2 of 2 left"):
        quotas.reserve("u1", "op1", "demo", {"vcpus": 3})
    quotas.set_limit("demo", "vcpus", -1)
    quotas.reserve("u1", "op1", "demo", {"vcpus": 300})


def test_a_limit_below_what_is_used_leaves_nothing_but_takes_nothing(quotas):
    quotas.reserve("u1", "op1", "demo", {"vcpus": 4})
    quotas.set_limit("demo", "vcpus", 2)
    with pytest.raises(QuotaExceeded, match="1 requested, 0 of 2 left"):
        quotas.reserve("u2", "op2", "demo", {"vcpus": 1})
    assert quotas.usage("demo")["vcpus"] == (0, 4, 2)


@pytest.mark.parametrize(("resource", "limit", "field"), [("gold", 1, "resource"), ("vcpus", -2, "limit")])
def test_a_limit_that_makes_no_sense_names_the_field(quotas, resource, limit, field):
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        quotas.set_limit("demo", resource, limit)


def test_eight_reservations_at_once_never_oversell(quotas, race):
    attempts = [partial(quotas.reserve, f"u{n}", f"op{n}", "demo", {"instances": 1, "vcpus": 1}) for n in range(8)]
    _, raised = race(attempts)
    assert [type(error) for error in raised] == [QuotaExceeded] * 5
    assert quotas.usage("demo")["instances"] == (0, 3, 3)


def test_eight_recharges_at_once_never_oversell(quotas, race):
    for n in range(8):
        quotas.reserve(f"u{n}", f"op{n}", "demo", {"instances": 1})
        quotas.commit(f"u{n}", f"op{n}")
        quotas.release(f"u{n}")
    _, raised = race([partial(quotas.recharge, f"u{n}") for n in range(8)])
    assert [type(error) for error in raised] == [QuotaExceeded] * 5
    assert quotas.usage("demo")["instances"] == (3, 0, 3)
