"""TaskFlow's own persistence contract tests, run against our backend on SQLite."""

import pytest

pytest.importorskip("testtools")

from virtflow.eventletless import without_eventlet

with without_eventlet():  # once it is imported, every fork of the test run is warned of
    from taskflow import test
    from taskflow.tests.unit.persistence import base

from virtflow.persistence.backend import FlowBackend, FlowConnection
from virtflow.persistence.database import Database
from virtflow.persistence.writer import Writer


class TestOnSqlite(test.TestCase, base.PersistenceTestMixin):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path):
        self._url = f"sqlite:///{tmp_path}/contract.db"

    def setUp(self):
        super().setUp()
        self._database = Database(self._url)
        # Every connection forgets what it wrote: what a test reads back comes from the database.
        self._writer = Writer(self._database)
        self._get_connection().upgrade()

    def tearDown(self):
        self._writer.close()
        self._database.close()
        super().tearDown()

    def _get_connection(self) -> FlowConnection:
        return FlowBackend(self._writer).get_connection()
