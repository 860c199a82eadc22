"""Hosts whose clocks are wrong, on real servers: they are neither given up, nor give up others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import mariadb as lab_mariadb
from virtflow.persistence import schema
from virtflow.persistence.claim import holds
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.models.engine import claims
from virtflow.persistence.singleton import hold_singleton

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]

HOUR = 3600
ELSEWHERE = json.dumps(["right", 1, 1, "another boot"])
OUT_OF_TIME = """
import json, sys, time
url, wrong = sys.argv[1], int(sys.argv[2])
right = time.time_ns
time.time_ns = lambda: right() + wrong * 1_000_000_000
from virtflow.persistence.database import Database
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.singleton import hold_singleton
database = Database(url)
hosts = HostRepository(database)
hosts.register("wrong", 1, 1024, 10, worker="w")
answer = {
    "marked": hosts.mark_down(60),
    "down": hosts.get("right").down(60, hosts.now()),
    "silent": hosts.why_silent("right", 60),
    "taken": hold_singleton(database, "theirs", "w", 60, None) is not None,
    "own": hold_singleton(database, "mine", "w", 60, None) is not None,
    "told": database.clock.in_words(),
}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres_server").create_database()
        return
    if reason := lab_mariadb.missing():
        pytest.skip(reason)
    with lab_mariadb.mariadb() as server:
        yield server.create_database()


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    schema.upgrade(opened)
    yield opened
    opened.close()


@pytest.mark.parametrize("wrong", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_who_lives_is_the_same_for_a_host_whose_clock_is_an_hour_wrong(
    url: str, database: Database, wrong: int
) -> None:
    hosts = HostRepository(database)
    hosts.register("right", 1, 1024, 10, worker="r")
    with database.transaction() as connection:
        connection.execute(claims.delete())
    assert hold_singleton(database, "theirs", ELSEWHERE, 60, None) is not None
    command = [sys.executable, "-c", OUT_OF_TIME, url, str(wrong)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    side = "ahead of" if wrong > 0 else "behind"
    words = told.pop("told").split()
    assert abs(float(words[4]) - HOUR) < 60
    assert " ".join(words[6:]) == f"{side} the database's"
    assert told == {"marked": [], "down": None, "silent": None, "taken": False, "own": True}
    assert hosts.get("wrong").down(60, hosts.now()) is None
    assert hosts.mark_down(60) == []
    with database.connect() as connection:
        touched = connection.execute(claims.select().where(claims.c.subject == "mine")).one().touched_at
    assert holds(ELSEWHERE, touched, 60, database.clock.now())
    assert not holds(ELSEWHERE, touched, 60, database.clock.now() + 61 * 1_000_000)
