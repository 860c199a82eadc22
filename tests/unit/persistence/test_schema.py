from __future__ import annotations

import os
import stat
import subprocess
import sys
from functools import partial

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from virtflow.errors import DatabaseError, HostStorageError, SchemaMismatch
from virtflow.persistence import migrations, schema
from virtflow.persistence.database import Database
from virtflow.persistence.models import metadata


@pytest.fixture
def empty(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/state/empty.db")
    yield database
    database.close()


def set_version(database, version):
    with database.transaction() as connection:
        connection.execute(sa.text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = :v"), {"v": version})


def test_the_migrated_schema_is_the_one_the_models_describe(database):
    with database.connect() as connection:
        options = {"version_table": migrations.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert differences == []


def test_sqlite_tables_are_stored_as_the_models_say(database):
    """What Alembic does not compare: WITHOUT ROWID, keys, the text of the types."""
    if database.dialect != "sqlite":
        pytest.skip("SQLite only")
    reference = sa.create_engine("sqlite://")
    metadata.create_all(reference)
    query = sa.text("SELECT name, sql FROM sqlite_master WHERE name != :v AND sql IS NOT NULL")
    with reference.connect() as wanted, database.connect() as found:
        shapes = [
            {
                name: sorted(each.strip(" ,") for each in sql.splitlines())
                for name, sql in connection.execute(query, {"v": migrations.VERSION_TABLE})
            }
            for connection in (wanted, found)
        ]
    reference.dispose()
    assert shapes[0] == shapes[1]


def test_the_head_constant_is_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", os.path.dirname(migrations.__file__))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.head()


def test_a_migrated_database_passes_the_check_and_upgrading_again_changes_nothing(database):
    schema.check(database)
    schema.upgrade(database)
    assert schema.current(database) == schema.head()


def test_a_missing_database_is_reported_and_not_made(empty):
    with pytest.raises(DatabaseError, match="missing: run `virtflow db upgrade`"):
        schema.check(empty)
    assert not empty.path.parent.exists()


def test_a_database_without_a_schema_is_reported(empty):
    empty.path.parent.mkdir()
    empty.path.touch()
    with pytest.raises(DatabaseError, match="missing: run `virtflow db upgrade`"):
        schema.check(empty)


def test_an_older_schema_says_what_to_run(database):
    set_version(database, "0000")
    with pytest.raises(SchemaMismatch, match=r"is at schema 0000, this virtflow needs .*: run `virtflow db upgrade`"):
        schema.check(database)
    set_version(database, schema.head())


def test_a_newer_schema_is_left_alone(database):
    set_version(database, "9999")
    for call in (schema.check, schema.upgrade):
        with pytest.raises(DatabaseError, match="schema 9999 is of a newer virtflow"):
            call(database)
    assert schema.current(database) == "9999"
    set_version(database, schema.head())


def test_a_new_sqlite_file_and_its_log_are_only_for_their_owner(empty):
    schema.upgrade(empty)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in empty.path.parent.iterdir()}
    assert modes["empty.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_a_file_that_is_no_database_is_named(empty):
    empty.path.parent.mkdir()
    empty.path.write_bytes(b"this is not a database, it only has a file name" * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        schema.check(empty)


def test_a_place_where_no_file_can_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    database = Database(f"sqlite:///{tmp_path}/file/v.db")
    with pytest.raises(HostStorageError, match=r"cannot create database .*/file/v\.db: Not a directory"):
        schema.upgrade(database)


def test_eight_threads_that_upgrade_at_once_all_succeed(empty, race):
    _, raised = race([partial(schema.upgrade, empty)] * 8)
    assert not raised
    schema.check(empty)


def test_processes_that_upgrade_at_once_all_succeed(empty):
    code = (
        "import sys; from virtflow.persistence import schema, database; schema.upgrade(database.Database(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{empty.path}"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in running] == [""] * 3
    schema.check(empty)


def test_a_migration_that_fails_leaves_no_half_of_it(empty, monkeypatch):
    """SQLite runs the whole upgrade in one transaction."""
    schema.upgrade(empty)
    with empty.transaction() as connection:
        connection.execute(sa.text(f"DELETE FROM {migrations.VERSION_TABLE}"))
        connection.execute(sa.text("DROP TABLE claims"))
    with pytest.raises(DatabaseError, match="already exists"):
        schema.upgrade(empty)
    with empty.connect() as connection:
        assert "claims" not in sa.inspect(connection).get_table_names()


def test_checking_the_schema_does_not_import_alembic(database):
    code = "import sys; from virtflow.persistence import schema; schema.head(); sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_everything_can_be_taken_down_again(empty):
    from alembic import command

    schema.upgrade(empty)
    config = Config()
    config.set_main_option("script_location", os.path.dirname(migrations.__file__))
    with empty.transaction() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with empty.connect() as connection:
        assert sa.inspect(connection).get_table_names() == [migrations.VERSION_TABLE]
