"""The boundary between accepting an operation and doing it."""

from __future__ import annotations

from typing import Any

from virtflow.tasks.base import Task


class Accept(Task):
    """Marks that the request was accepted: what comes before can refuse it, what comes after does it.

    Makes nothing; nothing to revert.
    """

    def execute(self) -> None:
        """The point itself is the effect: it is in the journal."""

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""
