"""How an operation ended, judged by its atoms and the ledger, never by TaskFlow's flow state.

After a failed revert TaskFlow's flow state says REVERTED although tasks are not; so the state word is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable

from taskflow import states
from taskflow.persistence.models import AtomDetail

from virtflow.persistence import operations

_UNTOUCHED = (None, states.PENDING, states.REVERTED, states.IGNORE)
_DONE = (states.SUCCESS, states.IGNORE)


def verdict(atoms: Iterable[AtomDetail], *, debts: int, cancelled: bool, undoing: bool, forward_only: bool) -> str:
    """The outcome of an operation whose engine has stopped for good."""
    found = {atom.state for atom in atoms}
    if found <= set(_DONE):
        return operations.SUCCESS
    if forward_only:
        return operations.FAILED_FORWARD
    if debts or not found <= set(_UNTOUCHED):
        return operations.REVERTED_WITH_DEBT
    if undoing:
        return operations.UNDONE
    return operations.CANCELLED if cancelled else operations.REVERTED
