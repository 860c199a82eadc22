"""Secrets (passwords, keys, user-data, injected files), encrypted before the database sees them.

Each has an owner. An operation's are purged when it ends; those of a volume, a snapshot or an attachment live as long
as it does, and whoever removes it purges them.

The store of a flow holds references only; a task resolves one when it needs the value. Fernet is AES-128-CBC with
HMAC-SHA256 (https://github.com/fernet/spec). The key is a file beside the database, never in it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from virtflow import redaction
from virtflow.errors import HostStorageError, SecretUnreadable
from virtflow.persistence.database import Database
from virtflow.persistence.inserts import insert_unless_taken
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import secrets as table

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

# How long a value is masked after it was last read here: longer than any task that reads one works with it.
_MASKED_SECONDS = 6 * 3600.0
_NAMESPACE = uuid.UUID("6f0c8a5e-0f3c-5d0e-9d6b-7b1f6a1f2c11")


class SecretStore:
    """``keys``: the first encrypts, each may decrypt, so that a new one can be put in front of an old one."""

    def __init__(self, database: Database, keys: Sequence[bytes]) -> None:
        self._database = database
        self._keys = tuple(keys)
        self._cipher: MultiFernet | None = None

    @staticmethod
    def reference(owner: str, name: str) -> str:
        """What ``put`` returns for it, whether or not it was put."""
        return f"secret:{uuid.uuid5(_NAMESPACE, f'{owner}/{name}')}"

    def put(self, owner: str, name: str, value: bytes) -> str:
        """Keep the value (in place of an earlier one of that name) and return its reference, always the same one."""
        row = self.seal(owner, name, value)
        ref: str = row["ref"]
        with self._database.transaction() as transaction:
            if not insert_unless_taken(transaction, table, row):
                transaction.execute(table.update().where(table.c.ref == ref).values(ciphertext=row["ciphertext"]))
        return ref

    def put_once(self, owner: str, name: str, value: bytes) -> str:
        """The same, but an earlier value stays: what was made up at random is made up once."""
        row = self.seal(owner, name, value)
        with self._database.transaction() as transaction:
            insert_unless_taken(transaction, table, row)
        return str(row["ref"])

    def seal(self, owner: str, name: str, value: bytes) -> dict[str, Any]:
        """The row that keeps a value, for whoever writes it."""
        redaction.remember(value, _MASKED_SECONDS)
        ref = self.reference(owner, name)
        ciphertext = self._fernet().encrypt(_bound(ref) + value)
        return {"ref": ref, "owner": owner, "name": name, "ciphertext": ciphertext, "created_at": now()}

    def get(self, ref: str) -> bytes:
        """The value, from now on masked in every log and message. SecretUnreadable: gone, or not ours to read."""
        from cryptography.fernet import InvalidToken

        with self._database.connect() as connection:
            ciphertext = connection.execute(sa.select(table.c.ciphertext).where(table.c.ref == ref)).scalar()
        if ciphertext is None:
            raise SecretUnreadable(ref=ref, reason="it was purged, or never stored")
        try:
            plain = self._fernet().decrypt(bytes(ciphertext))
        except InvalidToken as error:
            raise SecretUnreadable(ref=ref, reason="it was encrypted with another key, or was damaged") from error
        if not plain.startswith(_bound(ref)):
            raise SecretUnreadable(ref=ref, reason="it was stored under another reference")
        value = plain.removeprefix(_bound(ref))
        redaction.remember(value, _MASKED_SECONDS)
        return value

    def purge(self, owner: str) -> int:
        """Remove all secrets of this owner; say how many there were."""
        with self._database.transaction() as connection:
            return connection.execute(table.delete().where(table.c.owner == owner)).rowcount

    def count(self, owner: str) -> int:
        """How many secrets this owner has."""
        query = sa.select(sa.func.count()).select_from(table).where(table.c.owner == owner)
        with self._database.connect() as connection:
            return connection.execute(query).scalar_one()

    def _fernet(self) -> MultiFernet:
        if self._cipher is None:
            from cryptography.fernet import Fernet, MultiFernet

            self._cipher = MultiFernet([Fernet(key) for key in self._keys])
        return self._cipher


def _bound(ref: str) -> bytes:
    """What a value begins with when encrypted, so that whoever can write rows cannot swap one secret for another."""
    return ref.encode() + b"\0"


def load_or_create_key(path: Path) -> list[bytes]:
    """The keys in the file, one per line, the first being the one that encrypts. If absent, it is made with a new key.

    HostStorageError: unreadable, not keys, or readable by others than its owner.
    """
    try:
        if not path.exists():
            _create_key(path)
        if path.stat().st_mode & 0o077:
            raise HostStorageError(action="use the key file", path=path, reason=f"others can read it: chmod 600 {path}")
        keys = path.read_bytes().split()
    except OSError as error:
        raise HostStorageError(action="read the key file", path=path, reason=error.strerror) from error
    _check_keys(path, keys)
    return keys


def _check_keys(path: Path, keys: Sequence[bytes]) -> None:
    from cryptography.fernet import Fernet

    try:
        for key in keys:
            Fernet(key)
    except ValueError as error:
        raise HostStorageError(action="use the key file", path=path, reason="it holds something else") from error
    if not keys:
        raise HostStorageError(action="use the key file", path=path, reason="it is empty")


def _create_key(path: Path) -> None:
    """A complete file appears at once, or not at all; of two processes that try, both then read the first one's."""
    from cryptography.fernet import Fernet

    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.tmp.{uuid.uuid4()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(staged, path)
        except FileExistsError:
            return
    finally:
        staged.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
