"""What one process of all does is done by one, and by another when that one is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from virtflow.persistence import schema
from virtflow.persistence.claim import owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import claims
from virtflow.persistence.singleton import hold_singleton, release_singleton

SUBJECT = "00000000-0000-5000-8000-000000000001"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/virtflow.db")
    schema.upgrade(database)
    yield database
    database.close()


def elsewhere(pid: int = 7) -> str:
    """A process of another machine."""
    return json.dumps(["h2", pid, 1, "another boot"])


def test_one_of_two_has_it_and_keeps_it(database: Database) -> None:
    first = hold_singleton(database, SUBJECT, elsewhere(1), 15, None)
    assert first is not None
    assert hold_singleton(database, SUBJECT, elsewhere(2), 15, None) is None
    assert hold_singleton(database, SUBJECT, elsewhere(1), 15, first) == first


def test_who_gives_no_sign_of_life_loses_it_and_notices(database: Database) -> None:
    first = hold_singleton(database, SUBJECT, elsewhere(1), 15, None)
    with database.transaction() as connection:
        connection.execute(sa.update(claims).values(touched_at=claims.c.touched_at - 16_000_000))
    second = hold_singleton(database, SUBJECT, elsewhere(2), 15, None)
    assert second is not None
    assert second.epoch == 2
    assert hold_singleton(database, SUBJECT, elsewhere(1), 15, first) is None


def test_who_releases_it_lets_the_next_have_it_at_once(database: Database) -> None:
    first = hold_singleton(database, SUBJECT, elsewhere(1), 15, None)
    assert first is not None
    release_singleton(database, first)
    assert hold_singleton(database, SUBJECT, elsewhere(2), 15, None) is not None


def test_a_dead_process_of_this_machine_holds_nothing(database: Database) -> None:
    host, _pid, started, boot = json.loads(owner_here("h1"))
    dead = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(dead, 0)
    hold_singleton(database, SUBJECT, json.dumps([host, dead, started, boot]), 15, None)
    assert hold_singleton(database, SUBJECT, owner_here("h1"), 15, None) is not None
