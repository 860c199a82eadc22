"""Jobs on ZooKeeper (3.5 or newer): a transaction swaps a record and its entries.

A claim has a sign of life: an ephemeral node, which goes when the session of the worker ends. Its timeout is the
configured lease, within what the server allows. A worker that is connected, but extends its claim no more, is noticed
too: by those who see the record unchanged for longer than its lease, by their own clocks.

ZooKeeper lists all children of a node at once and answers with a megabyte at most, so that jobs that wait stand in a
tree of time: the cost of a claim does not depend on how many there are. Nodes of that tree go when they are empty.

    <ns>/jobs/<id>                                  the record; never listed
    <ns>/topics/<topic>/READY/<rank>/<h>/<s>/<place>  waiting: priority, 1,024 seconds, second
    <ns>/topics/<topic>/<other kind>/<place>        the other indexes
    <ns>/topics/<topic>/ALIVE/<place>               signs of life
    <ns>/topics/<topic>                             written to when there is something to claim
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from virtflow.config.options import Config
from virtflow.eventletless import without_eventlet
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.worker.boards.board import CLAIMED, PARKED, READY
from virtflow.worker.boards.news import News
from virtflow.worker.boards.server_url import server_url, without_password
from virtflow.worker.boards.stored_board import Kept, Look, StoredBoard
from virtflow.worker.boards.stored_job import DELAYED, Entry, StoredJob, decode, encode, id_at
from virtflow.worker.boards.zookeeper_session import UNREACHABLE, Session

with without_eventlet():
    from kazoo.client import TransactionRequest
    from kazoo.exceptions import (
        BadVersionError,
        NodeExistsError,
        NoNodeError,
        NotEmptyError,
        RolledBackError,
        RuntimeInconsistency,
    )

_ANSWER = 5.0
"""Seconds within which the server has to answer."""
_ALIVE = "ALIVE"
_KINDS = (READY, DELAYED, CLAIMED, PARKED, _ALIVE)
_CHANGES = 8
"""Times that one swap is tried, with parents that it lacked, and without what was gone already."""


class _Change(NamedTuple):
    """The last change of a claimed job's record, since when it was seen, and for how long it holds."""

    number: int
    since: float
    lease: float


class _Seen(NamedTuple):
    """The claimed jobs of a topic, which are not all looked at again ``until`` then."""

    changes: dict[str, _Change]
    until: float

    def silent(self, place: str, moment: float) -> bool:
        """Whether its lease is over."""
        change = self.changes.get(place)
        return change is not None and moment - change.since > change.lease


_NOTHING_SEEN = _Seen({}, 0.0)


def open_board(config: Config, _database: Database) -> StoredBoard:
    """The board at ``[jobboard] url``; ``zookeepers`` is with TLS: ``?ca=FILE&cert=FILE&key=FILE``.

    With a user and a password, what is made there can be read and written by that user only (digest). Raises
    ConfigurationError when it is no URL of a ZooKeeper.
    """
    options = config.jobboard
    url = server_url(options.url, ("zookeeper", "zookeepers"), "zookeeper://host1:2181,host2:2181")
    return StoredBoard(ZookeeperStore(url, options.namespace, options.lease), options.max_attempts)


class ZookeeperStore:
    """A ``Store``. See there. The path of the URL is where everything is, on a server that others use too."""

    unreachable = UNREACHABLE

    def __init__(self, url: str, namespace: str, session: float) -> None:
        self.url = without_password(url)
        self.news = News()
        self._root = f"{urlsplit(url).path.rstrip('/')}/{namespace}"
        self._session = Session(url, session, lambda: self.news.heard(list(self._watched)))
        self._watched: dict[str, Any] = {}
        self._seen: dict[str, _Seen] = {}

    def read(self, job_id: str) -> Kept | None:
        return self._records([(job_id, "")])[0]

    def swap(self, old: Kept | None, new: StoredJob | None, lease: float | None = None) -> bool:
        one = old.job if old is not None else new
        assert one is not None
        record = self._path("jobs", one.id)
        sign = self._place(new.entry._replace(kind=_ALIVE)) if new and lease is not None else None
        gone = (
            {self._place(old.entry), self._path("topics", old.job.topic, _ALIVE, old.job.entry.place)} if old else set()
        )
        without: set[str] = set()
        for _ in range(_CHANGES):
            change = self._session.client().transaction()
            steps = self._steps(change, old, new, lease is not None, without)
            failed = _failed(change.commit_async().get(timeout=_ANSWER), steps)
            if failed is None:
                return True
            path, error = failed
            if path == record and (old is not None or isinstance(error, NodeExistsError)):
                return False
            if path in (record, sign) or (new is not None and path == self._place(new.entry)):
                self._make(path)
            if path not in (record, sign) and (isinstance(error, NodeExistsError) or path in gone):
                without.add(path)  # gone already, or here already
        return False

    def look(self, topics: Sequence[str], width: int, lost: bool) -> Look:
        look, entries = Look(), []
        for topic in topics:
            entries += [Entry(READY, topic, place) for place in islice(self._waiting(topic), width)]
            for place in self._children("topics", topic, DELAYED):
                due = (int(place[2:19]) - now()) / 1e6 if place[2:19].isdigit() else 0
                if due <= 0:
                    entries.append(Entry(DELAYED, topic, place))
                else:
                    look.due = due if look.due is None else min(due, look.due)
            if lost:
                claimed = self._children("topics", topic, CLAIMED)
                alive = set(self._children("topics", topic, _ALIVE))
                gone = [place for place in claimed if place not in alive]
                held = [place for place in claimed if place in alive]
                if held:
                    silent, due = self._silent(topic, held)
                    gone += silent
                    look.due = due if look.due is None else min(due, look.due)
                entries += [Entry(CLAIMED, topic, place) for place in gone[:width]]
        for entry, kept in zip(entries, self._records([(entry.id, entry.topic) for entry in entries]), strict=True):
            if kept is None or (kept.job.foreign is None and kept.job.entry != entry):
                self._drop(entry, kept)
                look.removed = True
            else:
                (look.ready if entry.kind == READY else look.overdue).append(Kept(kept.job, kept.version, entry))
        return look

    def listing(self, topic: str | None, limit: int) -> list[Kept]:
        found: list[Kept | None] = []
        for name in [topic] if topic is not None else self._children("topics"):
            places = list(islice(self._waiting(name), limit))
            for kind in (DELAYED, CLAIMED, PARKED):
                places += self._children("topics", name, kind)[:limit]
            found += self._records([(id_at(place), name) for place in places])
        return [kept for kept in found if kept is not None]

    def listen(self, topics: Sequence[str]) -> None:
        """Watches are for one time: they are set again for each wait."""
        client = self._session.client()
        for topic in topics:
            told = self._watched.setdefault(topic, partial(self._told, topic))
            for path, ask in ((self._path("topics", topic), client.get_async), (None, client.get_children_async)):
                watched = path or self._path("topics", topic, _ALIVE)
                try:
                    ask(watched, watch=told).get(timeout=_ANSWER)
                except NoNodeError:
                    self._make(self._path("topics", topic, _ALIVE, "x"))
                    ask(watched, watch=told).get(timeout=_ANSWER)

    def reconnect(self) -> None:
        self._session.reconnect()

    def close(self) -> None:
        """Ends the session, and with it the claims."""
        self._session.close()

    def _told(self, topic: str, _event: object) -> None:
        self.news.heard([topic])

    def _steps(
        self, change: TransactionRequest, old: Kept | None, new: StoredJob | None, held: bool, without: set[str]
    ) -> list[str]:
        """Put into the transaction what replaces one by the other, but nothing of ``without``; returns the paths."""
        one = old.job if old is not None else new
        assert one is not None
        steps: list[str] = []

        def step(path: str, do: Any, *arguments: Any, **options: Any) -> None:
            if path not in without:
                do(path, *arguments, **options)
                steps.append(path)

        record = self._path("jobs", one.id)
        if new is None:
            assert old is not None
            step(record, change.delete, version=old.version[0])
        elif old is None:
            step(record, change.create, encode(new))
        else:
            step(record, change.set_data, encode(new), version=old.version[0])
        came, gone = new.entry if new else None, old.entry if old else None
        if gone is not None and gone != came:
            step(self._place(gone), change.delete)
        if came is not None and gone != came:
            step(self._place(came), change.create)
        if held:
            assert came is not None
            self._sign(step, change, came)
        elif old is not None and old.job.state == CLAIMED and (new is None or new.state != CLAIMED):
            step(self._place(old.job.entry._replace(kind=_ALIVE)), change.delete)
        if new is not None and new.state == READY:
            step(self._path("topics", new.topic), change.set_data, b"")
        return steps

    def _sign(self, step: Any, change: TransactionRequest, entry: Entry) -> None:
        """A sign of life of this session, where there is none or one of an earlier session."""
        path = self._place(entry._replace(kind=_ALIVE))
        client = self._session.client()
        stat = client.exists_async(path).get(timeout=_ANSWER)
        if stat is not None and stat.ephemeralOwner == client.client_id[0]:
            return
        if stat is not None:
            step(path, change.delete)
        step(path, change.create, b"", ephemeral=True)

    def _silent(self, topic: str, places: Sequence[str]) -> tuple[list[str], float]:
        """Those whose record has not changed for longer than its lease, and the seconds until there may be more.

        To look means to read every claimed record, which is not done at every opportunity; only those that were silent
        at the last look are read again.
        """
        moment = time.monotonic()
        last = self._seen.get(topic, _NOTHING_SEEN)
        if moment < last.until:
            places = [place for place in places if last.silent(place, moment)]
        changes = {}
        for place, kept in zip(places, self._records([(id_at(place), topic) for place in places]), strict=True):
            if kept is not None:
                known = last.changes.get(place)
                since = known.since if known and known.number == kept.version[1] else moment
                changes[place] = _Change(kept.version[1], since, kept.job.lease)
        if moment < last.until:
            seen = _Seen(last.changes | changes, last.until)
        else:
            seen = _Seen(changes, moment + self._session.timeout / 4)
        self._seen[topic] = seen
        return [place for place in places if seen.silent(place, moment)], seen.until - moment

    def _waiting(self, topic: str) -> Iterator[str]:
        """Places in order. Nodes of the tree that are found empty are removed."""
        base = ("topics", topic, READY)
        for rank in self._children(*base):
            for hours in self._children(*base, rank):
                seconds = self._children(*base, rank, hours)
                for second in seconds:
                    places = self._children(*base, rank, hours, second)
                    here = self._path(*base, rank, hours, second)
                    # What others put here, and where it does not belong, is in nobody's way.
                    yield from (one for one in places if self._place(Entry(READY, topic, one)) == f"{here}/{one}")
                    if not places:
                        self._prune(*base, rank, hours, second)
                if not seconds:
                    self._prune(*base, rank, hours)

    def _prune(self, *path: str) -> None:
        with suppress(NotEmptyError, NoNodeError):
            self._session.client().delete_async(self._path(*path)).get(timeout=_ANSWER)

    def _drop(self, entry: Entry, kept: Kept | None) -> None:
        """Remove an entry that is not that of its record, unless that has changed since."""
        change = self._session.client().transaction()
        record = self._path("jobs", entry.id or "-")
        if kept is not None:
            change.check(record, kept.version[0])
        else:
            change.create(record)
            change.delete(record)
        change.delete(self._place(entry))
        change.commit_async().get(timeout=_ANSWER)

    def _records(self, wanted: Sequence[tuple[str, str]]) -> list[Kept | None]:
        """The records of these ids, which were found at these topics; asked for all at once."""
        client = self._session.client()
        asked = [client.get_async(self._path("jobs", job_id or "-")) for job_id, _ in wanted]
        found: list[Kept | None] = []
        for (job_id, topic), answer in zip(wanted, asked, strict=True):
            try:
                raw, stat = answer.get(timeout=_ANSWER)
                found.append(Kept(decode(job_id, topic, raw), (stat.version, stat.mzxid)))
            except NoNodeError:
                found.append(None)
        return found

    def _children(self, *path: str) -> list[str]:
        try:
            return sorted(self._session.client().get_children_async(self._path(*path)).get(timeout=_ANSWER))
        except NoNodeError:
            return []

    def _make(self, path: str) -> None:
        """The parents of a node."""
        with suppress(NodeExistsError):
            self._session.client().ensure_path_async(path.rpartition("/")[0]).get(timeout=_ANSWER)

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _place(self, entry: Entry) -> str:
        place, base = entry.place, ("topics", entry.topic, entry.kind)
        if entry.kind != READY or not entry.id:
            return self._path(*base, place)
        second = int(place[2:19]) // 1_000_000
        return self._path(*base, place[0], f"{second >> 10:010d}", f"{second & 1023:04d}", place)


def _failed(results: Sequence[Any], steps: Sequence[str]) -> tuple[str, Exception] | None:
    """The step that made a transaction fail, and why; None when it did not fail."""
    for path, result in zip(steps, results, strict=True):
        if isinstance(result, (RolledBackError, RuntimeInconsistency)):
            continue
        if isinstance(result, (NoNodeError, NodeExistsError, BadVersionError)):
            return path, result
        if isinstance(result, Exception):
            raise result
    return None
