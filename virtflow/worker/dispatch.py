"""The engine's way to a board: within the commit where the board is in the same database, right after it elsewhere."""

from __future__ import annotations

import logging

from virtflow.errors import BoardUnreachable
from virtflow.persistence.job_news import news_of
from virtflow.persistence.job_statements import JobStatements
from virtflow.persistence.posting import Posting
from virtflow.persistence.writer import Batch
from virtflow.worker.boards.board import Board

LOG = logging.getLogger(__name__)


class JoinedDispatch:
    """For the board in the database: the job is there if, and only if, what makes it necessary is."""

    def __init__(self, statements: JobStatements) -> None:
        self._statements = statements
        self._news = news_of(statements.database)

    def joined(self, posting: Posting) -> Batch:
        return self._statements.post(posting)

    def posted(self, posting: Posting) -> None:
        self._news.tell(posting.topic)


class BoardDispatch:
    """For every other board. What does not reach it is posted again by the reconciler."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def joined(self, _posting: Posting) -> Batch:
        return []

    def posted(self, posting: Posting) -> None:
        try:
            self._board.post(posting)
        except BoardUnreachable as error:
            LOG.warning("%s is posted later: %s", posting.name, error)
