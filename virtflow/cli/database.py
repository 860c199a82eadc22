"""``virtflow db``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from virtflow.cli.command import Command, ShowOne
from virtflow.cli.requesting import Output

if TYPE_CHECKING:
    from virtflow.persistence.database import Database


class Upgrade(Command):
    """Bring the database to the schema of this virtflow. Does nothing when it is there already.

    An SQLite database is also upgraded by every other command; PostgreSQL and MariaDB only by this one.
    """

    examples = ("virtflow db upgrade",)

    def take_action(self, parsed_args: argparse.Namespace) -> None:  # noqa: ARG002
        from virtflow.persistence import schema

        database = _open(self)
        before = schema.current(database)
        schema.upgrade(database)
        what = "is at schema" if before == schema.head() else f"upgraded from {before or 'nothing'} to schema"
        self.app.stdout.write(f"{database.url} {what} {schema.head()}\n")


class Check(ShowOne):
    """Tell which schema the database has; exit code 1 when it is not the one this virtflow needs."""

    examples = ("virtflow db check",)

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.persistence import schema

        database = _open(self)
        schema.check(database)
        return ("url", "schema", "needed"), [database.url, schema.current(database), schema.head()]


def _open(command: Command) -> Database:
    from virtflow.persistence.database import Database

    options = command.context.config.database
    return Database(options.url, busy_timeout=options.busy_timeout)
