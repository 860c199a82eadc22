"""The one statement that is not the same everywhere: insert unless a unique key is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError


def insert_unless_taken(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
    """Insert a row inside a savepoint; False if a constraint refused it, with the transaction still usable.

    ON CONFLICT is not the same on MariaDB, and PostgreSQL aborts the whole transaction at a violation.
    """
    try:
        with connection.begin_nested():
            connection.execute(table.insert().values(**values))
    except IntegrityError:
        return False
    return True
