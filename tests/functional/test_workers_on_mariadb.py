"""Workers whose database is MariaDB: nothing notifies there, and everything else is as on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.functional.conftest import missing
from tests.lab import mariadb as lab_mariadb
from virtflow import DeleteRequest
from virtflow.testing.fleet import Fleet

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]


def test_guests_are_made_deleted_and_undone_by_workers_and_nothing_is_left() -> None:
    if reason := missing() or lab_mariadb.missing():
        pytest.skip(reason)
    with lab_mariadb.mariadb() as server, Fleet.up(database=server.create_database()) as fleet:
        fleet.start()
        made = [fleet.client.submit(fleet.small()) for _ in range(3)]
        assert [fleet.wait(each).outcome for each in made] == ["SUCCESS"] * 3
        gone = fleet.client.submit(DeleteRequest(name=str(made[0].request["name"])))
        undone = fleet.client.request_undo(made[1].id)
        assert (fleet.wait(gone).outcome, fleet.wait(undone).outcome) == ("SUCCESS", "UNDONE")
        assert fleet.settle() == []
