"""The verdict comes from atoms and debts alone."""

from __future__ import annotations

import itertools

import pytest
from taskflow.persistence.models import TaskDetail

from virtflow.engine.verdict import verdict
from virtflow.persistence import operations as ops


def atoms(*states: str | None) -> list[TaskDetail]:
    details = []
    for number, state in enumerate(states):
        detail = TaskDetail(f"task{number}", f"uuid{number}")
        detail.state = state
        details.append(detail)
    return details


def judge(*states: str | None, debts: int = 0, cancelled: bool = False, undoing: bool = False) -> str:
    return verdict(atoms(*states), debts=debts, cancelled=cancelled, undoing=undoing, forward_only=False)


@pytest.mark.parametrize(
    ("states", "flags", "outcome"),
    [
        (("SUCCESS", "SUCCESS"), {}, ops.SUCCESS),
        (("SUCCESS", "IGNORE"), {}, ops.SUCCESS),
        (("SUCCESS", "SUCCESS"), {"cancelled": True}, ops.SUCCESS),
        (("REVERTED", "REVERTED", "PENDING"), {}, ops.REVERTED),
        (("REVERTED", "PENDING", None), {}, ops.REVERTED),
        (("REVERTED", "PENDING"), {"cancelled": True}, ops.CANCELLED),
        (("REVERTED", "REVERTED"), {"undoing": True}, ops.UNDONE),
        (("REVERTED", "REVERTED"), {"undoing": True, "cancelled": True}, ops.UNDONE),
        (("REVERTED", "REVERTED"), {"debts": 1}, ops.REVERTED_WITH_DEBT),
        (("REVERTED", "REVERTED"), {"debts": 1, "undoing": True}, ops.REVERTED_WITH_DEBT),
        (("SUCCESS", "REVERTED"), {}, ops.REVERTED_WITH_DEBT),
        (("REVERT_FAILURE", "PENDING"), {}, ops.REVERTED_WITH_DEBT),
        (("SUCCESS", "FAILURE"), {}, ops.REVERTED_WITH_DEBT),
        (("RUNNING",), {}, ops.REVERTED_WITH_DEBT),
    ],
)
def test_the_outcome_follows_from_what_each_task_became(
    states: tuple[str | None, ...], flags: dict[str, bool], outcome: str
) -> None:
    assert judge(*states, **flags) == outcome  # type: ignore[arg-type]


def test_no_task_that_still_stands_is_ever_called_reverted() -> None:
    """Stock TaskFlow says REVERTED of a flow whose revert failed half way."""
    alive = ("SUCCESS", "RUNNING", "FAILURE", "REVERTING", "REVERT_FAILURE")
    gone = ("PENDING", "REVERTED", "IGNORE")
    for one, other, cancelled, undoing in itertools.product(alive, gone, (True, False), (True, False)):
        outcome = judge(one, other, cancelled=cancelled, undoing=undoing)
        assert outcome not in (ops.REVERTED, ops.CANCELLED, ops.UNDONE), (one, other)


@pytest.mark.parametrize("state", ["FAILURE", "PENDING", "RUNNING"])
def test_what_only_goes_forward_is_done_or_not_done_yet(state: str) -> None:
    flags = {"debts": 0, "cancelled": False, "undoing": False, "forward_only": True}
    assert verdict(atoms("SUCCESS", state), **flags) == ops.FAILED_FORWARD  # type: ignore[arg-type]
    assert verdict(atoms("SUCCESS", "SUCCESS"), **flags) == ops.SUCCESS  # type: ignore[arg-type]
