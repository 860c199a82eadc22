"""How the news that there is something to do leaves the engine. The worker's boards are behind it."""

from __future__ import annotations

from typing import Protocol

from virtflow.persistence.posting import Posting
from virtflow.persistence.writer import Batch


class Dispatch(Protocol):
    """Tells of something to do twice: once within the commit that makes it necessary, and once after it.

    A board in the same database needs only the first, any other board only the second. What is lost in between is
    posted again by the reconciler, from the rows that say what is to be done.
    """

    def joined(self, posting: Posting) -> Batch:
        """Statements that join the commit; none where the board is elsewhere."""

    def posted(self, posting: Posting) -> None:
        """The commit is durable. Never raises: the reconciler mends what did not reach the board."""
