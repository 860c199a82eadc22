from __future__ import annotations

import stat
from functools import partial

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from virtflow import redaction
from virtflow.errors import HostStorageError, SecretUnreadable
from virtflow.persistence.models.inventory import secrets as table
from virtflow.persistence.secrets import SecretStore, load_or_create_key

KEY = Fernet.generate_key()
CANARY = b"canary-8c1f-password"


@pytest.fixture
def secrets(database):
    return SecretStore(database, [KEY])


def test_a_secret_is_kept_until_its_operation_is_purged(secrets):
    ref = secrets.put("op1", "admin_password", CANARY)
    other = secrets.put("op2", "admin_password", b"other secret")
    assert secrets.get(ref) == CANARY
    assert (secrets.count("op1"), secrets.purge("op1"), secrets.purge("op1"), secrets.count("op1")) == (1, 1, 0, 0)
    with pytest.raises(SecretUnreadable, match="it was purged, or never stored"):
        secrets.get(ref)
    assert secrets.get(other) == b"other secret"


def test_putting_again_replaces_the_value_and_gives_the_same_reference(secrets):
    first = secrets.put("op1", "user_data", b"first value")
    assert secrets.put("op1", "user_data", b"second value") == first
    assert secrets.put("op1", "other", b"third value") != first
    assert secrets.get(first) == b"second value"
    assert secrets.count("op1") == 2


def test_a_value_that_is_put_once_stays(secrets):
    ref = secrets.put_once("attachment", "chap", b"first value")
    assert secrets.put_once("attachment", "chap", b"second value") == ref
    assert (secrets.get(ref), secrets.count("attachment")) == (b"first value", 1)


@pytest.mark.parametrize("value", [b"", b"\0\xff\xfe", b"x" * 200_000])
def test_any_bytes_come_back_as_they_were(secrets, value):
    assert secrets.get(secrets.put("op1", "file", value)) == value


def test_the_database_never_sees_the_plaintext(tmp_path, database, secrets):
    ref = secrets.put("op1", "admin_password", CANARY)
    with database.connect() as connection:
        row = connection.execute(sa.select(table)).one()
    assert row.ref == ref
    assert CANARY not in repr(tuple(row)).encode()
    files = [path for path in tmp_path.iterdir() if path.name.startswith("v.db")]
    assert all(CANARY not in path.read_bytes() for path in files)


def test_a_secret_that_was_read_is_masked_from_then_on(monkeypatch, secrets):
    ref = secrets.put("op1", "admin_password", b"read-and-masked")
    monkeypatch.setattr(redaction, "_known", {})
    assert redaction.scrub("login read-and-masked") == "login read-and-masked"
    secrets.get(ref)
    assert redaction.scrub("login read-and-masked") == "login ***"


def test_an_old_key_still_reads_and_a_wrong_one_says_so(database, secrets):
    ref = secrets.put("op1", "password", CANARY)
    new = Fernet.generate_key()
    assert SecretStore(database, [new, KEY]).get(ref) == CANARY
    with pytest.raises(SecretUnreadable, match="encrypted with another key, or was damaged"):
        SecretStore(database, [new]).get(ref)


def test_a_secret_moved_to_another_row_is_refused(database, secrets):
    mine = secrets.put("op1", "password", b"my own secret")
    theirs = secrets.put("op2", "password", b"their secret")
    with database.transaction() as connection:
        stolen = connection.execute(sa.select(table.c.ciphertext).where(table.c.ref == theirs)).scalar()
        connection.execute(table.update().where(table.c.ref == mine).values(ciphertext=stolen))
    with pytest.raises(SecretUnreadable, match="stored under another reference"):
        secrets.get(mine)


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "state" / "secrets.key"
    keys = load_or_create_key(path)
    assert load_or_create_key(path) == keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["secrets.key"]


def test_eight_that_make_the_key_at_once_all_get_the_same(tmp_path, race):
    keys, raised = race([partial(load_or_create_key, tmp_path / "secrets.key")] * 8)
    assert not raised
    assert len({tuple(each) for each in keys}) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["secrets.key"]


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [(KEY, 0o644, "others can read it"), (b"not a key", 0o600, "it holds something else"), (b"", 0o600, "it is empty")],
    ids=["readable", "something else", "empty"],
)
def test_a_key_file_that_is_not_one_is_refused(tmp_path, content, mode, reason):
    path = tmp_path / "secrets.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(HostStorageError, match=reason):
        load_or_create_key(path)


def test_a_key_that_cannot_be_made_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostStorageError, match=r"cannot read the key file .*secrets\.key: Not a directory"):
        load_or_create_key(tmp_path / "file" / "secrets.key")


def test_a_rotated_key_file_encrypts_with_its_first_line(tmp_path, database):
    path = tmp_path / "secrets.key"
    old = load_or_create_key(path)
    path.write_bytes(Fernet.generate_key() + b"\n" + old[0] + b"\n")
    ref = SecretStore(database, load_or_create_key(path)).put("op", "password", CANARY)
    with pytest.raises(SecretUnreadable):
        SecretStore(database, old).get(ref)
