"""The repositories on a real PostgreSQL, where transactions run side by side (SQLite lets one write at a time)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtflow.persistence import schema
from virtflow.persistence.database import Database

UNIT = Path(__file__).parents[1] / "unit" / "persistence"
MODULES = ["instances", "hosts", "placement", "flavors", "base_references", "networks", "quotas", "secrets", "schema"]


@pytest.mark.must_run
def test_everything_that_holds_on_sqlite_holds_on_postgresql(fresh_postgres_url):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(UNIT / f"test_{module}.py") for module in MODULES]
    environment = os.environ | {"VIRTFLOW_TEST_DATABASE": fresh_postgres_url, "CI": ""}
    done = subprocess.run(command, env=environment, cwd=UNIT.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.must_run
def test_processes_that_upgrade_one_postgresql_at_once_all_succeed(fresh_postgres_url):
    code = (
        "import sys; from virtflow.persistence import schema, database; schema.upgrade(database.Database(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, fresh_postgres_url]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in running] == [""] * 3
    database = Database(fresh_postgres_url)
    schema.check(database)
    database.close()
