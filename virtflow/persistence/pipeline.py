"""One transaction of prepared statements in one round trip to PostgreSQL, through psycopg's wrapper of libpq.

In a pipeline in autocommit everything up to the sync is one implicit transaction: it commits as a whole, or not at
all. Statements go out as text parameters to statements that were prepared once per connection; psycopg's cursors,
with an adapter per value and a result object per statement, cost five times as much as the rest of a commit.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus

_SENT = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class Pipeline:
    """For a psycopg connection in autocommit that nobody else uses."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._prepared: dict[str, bytes] = {}
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)

    def transact(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Execute and commit. Raises what psycopg would raise; nothing is committed then."""
        named = [(self._name(sql), [_text(value) for value in values]) for sql, values in statements]
        self._pgconn.enter_pipeline_mode()
        for name, values in named:
            self._pgconn.send_query_prepared(name, values)
        self._pgconn.pipeline_sync()
        self._send()
        failed = self._receive()
        self._pgconn.exit_pipeline_mode()
        if failed is not None:
            raise failed

    def _name(self, sql: str) -> bytes:
        name = self._prepared.get(sql)
        if name is None:
            name = b"virtflow_%d" % len(self._prepared)
            result = self._pgconn.prepare(name, sql.encode())
            if result.status != ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
            self._prepared[sql] = name
        return name

    def _send(self) -> None:
        """The socket does not block: what it does not take, it takes when the server has read some."""
        while self._pgconn.flush():
            self._poll.modify(self._pgconn.socket, select.POLLIN | select.POLLOUT)
            self._poll.poll()
            self._pgconn.consume_input()
        self._poll.modify(self._pgconn.socket, select.POLLIN)

    def _receive(self) -> errors.Error | None:
        """Take all results up to the sync; the first failure."""
        failed = None
        for result in self._results():
            if result.status == ExecStatus.PIPELINE_SYNC:
                return failed
            if failed is None and result.status not in _SENT:
                failed = errors.error_from_result(result)
        raise AssertionError("unreachable")

    def _results(self) -> Iterable[Any]:
        while True:
            while self._pgconn.is_busy():
                self._poll.poll()
                self._pgconn.consume_input()
            result = self._pgconn.get_result()
            if result is not None:  # None stands between the results of two statements
                yield result


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return text.encode()
