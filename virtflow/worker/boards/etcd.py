"""Jobs on etcd (3.4 or newer, through its JSON gateway): a transaction swaps a record and its entries.

A claim stands in two places: in the index of claimed jobs, and beside it, attached to a lease of etcd, as a sign of
life. etcd removes the sign when the lease ends; a claimed job without one has lost its owner. Leases of etcd are whole
seconds, two at least with its usual settings, and start anew when the server does.

etcd counts all keys of a range, also of one that it cuts short, so that jobs that wait are found through the keys of
the seconds and of the thousands of seconds in which there are any: a claim does not depend on how many there are.

    <ns>/jobs/<id>                       the record
    <ns>/at/<topic>/<kind>/<place>       the indexes, empty values; keys sort as text
    <ns>/at/<topic>/ALIVE/<place>        signs of life
    <ns>/at/<topic>/SECONDS|SPANS/<beginning of a place>    where there are READY ones
    <ns>/topics/<topic>                  the topics there ever were
"""

from __future__ import annotations

import json
import math
import os
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from virtflow.config.options import Config
from virtflow.errors import ConfigurationError
from virtflow.eventletless import without_eventlet
from virtflow.persistence.database import Database
from virtflow.persistence.models.base import now
from virtflow.worker.boards.board import CLAIMED, READY
from virtflow.worker.boards.news import Listeners, News
from virtflow.worker.boards.server_url import credentials_of, hosts_of, server_url, without_password
from virtflow.worker.boards.stored_board import Kept, Look, StoredBoard
from virtflow.worker.boards.stored_job import DELAYED, KINDS, Entry, StoredJob, decode, encode

with without_eventlet():
    import etcd3gw
    import requests

_ANSWER = 5.0
"""Seconds within which the server has to answer."""
_SILENCE = 30.0
"""Seconds without an event after which it is asked for events anew: a connection can die without a word."""
_ALIVE = "ALIVE"
_SECONDS, _SPANS = "SECONDS", "SPANS"
_SECOND, _SPAN = len("0.") + 11, len("0.") + 8
"""Characters that places of the same second, or of the same thousand seconds, have in common: time is in digits."""
_OPERATIONS = 100
"""What a transaction may have: 128 with etcd's usual settings."""


def open_board(config: Config, _database: Database) -> StoredBoard:
    """The board at ``[jobboard] url``; ``etcds`` is with TLS: ``?ca=FILE&cert=FILE&key=FILE``.

    Raises ConfigurationError when that is no URL of an etcd server.
    """
    options = config.jobboard
    url = server_url(options.url, ("etcd", "etcds"), "etcd://host:2379")
    if credentials_of(url):
        reason = "users of etcd are known by certificates, not by passwords: etcds://host:2379?ca=...&cert=...&key=..."
        raise ConfigurationError(group="jobboard", option="url", reason=reason)
    return StoredBoard(EtcdStore(url, options.namespace), options.max_attempts)


class EtcdStore:
    """A ``Store``. See there. Of several hosts in the URL, one is used until it does not answer."""

    unreachable = (etcd3gw.exceptions.Etcd3Exception, requests.RequestException, OSError)

    def __init__(self, url: str, namespace: str) -> None:
        parts = urlsplit(url)
        files = dict(parse_qsl(parts.query))
        self.url = without_password(url)
        self.news = News()
        self._namespace = namespace
        self._clients = [
            etcd3gw.Etcd3Client(
                host=host,
                port=port,
                protocol="https" if parts.scheme == "etcds" else "http",
                ca_cert=files.get("ca"),
                cert_cert=files.get("cert"),
                cert_key=files.get("key"),
                timeout=_ANSWER,
                api_path="/v3/",
            )
            for host, port in hosts_of(url, 2379)
        ]
        self._client = self._clients[0]
        self._fronts: dict[str, str] = {}
        self._streams: dict[str, requests.Response] = {}
        self._listeners = Listeners(self._listen, self.unreachable)

    def read(self, job_id: str) -> Kept | None:
        return self._records([(job_id, "")])[0]

    def swap(self, old: Kept | None, new: StoredJob | None, lease: float | None = None) -> bool:
        one = old.job if old is not None else new
        assert one is not None
        record = self._record(one.id)
        operations = [_delete(record) if new is None else _put(record, encode(new))]
        operations += self._moves(old.entry if old else None, new.entry if new else None)
        granted = None
        if lease is not None:
            assert new is not None
            granted = self._client.lease(ttl=math.ceil(lease))
            operations.append(_put(self._sign(new.entry), b"", granted.id))
        elif old is not None and old.job.state == CLAIMED and (new is None or new.state != CLAIMED):
            operations.append(_delete(self._sign(old.job.entry)))
        if old is None:
            operations.append(_put(f"{self._namespace}/topics/{one.topic}", b""))
        swapped = self._transact(operations, [_unchanged(record, old.version if old else None)]) is not None
        if granted is not None and not swapped:
            granted.revoke()
        return swapped

    def look(self, topics: Sequence[str], width: int, lost: bool) -> Look:
        moment = f"0.{now():017d}~"
        ranges, entries = [], []
        for topic in topics:
            entries += self._waiting(topic, width)
            delayed = self._index(topic, DELAYED)
            ranges.append(_range(delayed, end=delayed + moment, limit=width))
            ranges.append(_range(delayed + moment, end=_after(delayed), limit=1))
            if lost:
                ranges += [_range(self._index(topic, kind)) for kind in (CLAIMED, _ALIVE)]
        answers = iter([[_entry(key) for key, _, _ in found] for found in self._ranges(ranges)])
        look = Look()
        for _ in topics:
            overdue, later = next(answers), next(answers)
            entries += overdue
            if later:
                due = (int(later[0].place[2:19]) - now()) / 1e6
                look.due = max(0.001, due if look.due is None else min(due, look.due))
            if lost:
                claimed, alive = next(answers), {entry.place for entry in next(answers)}
                entries += [entry for entry in claimed if entry.place not in alive][:width]
        for entry, kept in zip(entries, self._records([(entry.id, entry.topic) for entry in entries]), strict=True):
            if kept is None or (kept.job.foreign is None and kept.job.entry != entry):
                self._drop(entry, kept)
                look.removed = True
            else:
                (look.ready if entry.kind == READY else look.overdue).append(Kept(kept.job, kept.version, entry))
        return look

    def listing(self, topic: str | None, limit: int) -> list[Kept]:
        topics = [topic] if topic is not None else self._topics()
        ranges = [_range(self._index(name, kind), limit=limit) for name in topics for kind in KINDS]
        entries = [_entry(key) for found in self._ranges(ranges) for key, _, _ in found]
        kept = self._records([(entry.id, entry.topic) for entry in entries])
        return [one for one in kept if one is not None]

    def listen(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._listeners.to(topic)

    def reconnect(self) -> None:
        place = self._clients.index(self._client)
        self._client = self._clients[(place + 1) % len(self._clients)]

    def close(self) -> None:
        self._listeners.stop(self._interrupt)
        for client in self._clients:
            client.session.close()

    def _listen(self, topic: str) -> None:
        client, prefix = self._client, f"{self._namespace}/at/{topic}/"
        wanted = {"create_request": {"key": _base64(prefix), "range_end": _base64(_after(prefix))}}
        timeout = (_ANSWER, _SILENCE)
        with client.session.post(client.get_url("/watch"), json=wanted, stream=True, timeout=timeout) as stream:
            self._streams[topic] = stream
            with suppress(requests.RequestException, AttributeError):  # silence, the end of the server, or ours
                for line in _lines(stream):
                    if self._listeners.stopped:
                        return
                    if line and _tells(json.loads(line).get("result", {})):
                        self.news.heard([topic])

    def _interrupt(self) -> None:
        for stream in list(self._streams.values()):
            with suppress(OSError, ValueError, AttributeError), _socket(stream) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def _moves(self, old: Entry | None, new: Entry | None) -> list[dict[str, Any]]:
        """What changes in the indexes."""
        if old == new:
            return []
        moves = [] if old is None else [_delete(self._index(old.topic, old.kind) + old.place)]
        if new is not None:
            moves.append(_put(self._index(new.topic, new.kind) + new.place, b""))
        if new is not None and new.kind == READY:
            moves.append(_put(self._index(new.topic, _SECONDS) + new.place[:_SECOND], b""))
            moves.append(_put(self._index(new.topic, _SPANS) + new.place[:_SPAN], b""))
        return moves

    def _waiting(self, topic: str, width: int) -> list[Entry]:
        """The first entries of those that wait, up to ``width`` of the same second.

        They are usually where they were the last time, which takes one question.
        """
        ready, seconds, spans = (self._index(topic, kind) for kind in (READY, _SECONDS, _SPANS))
        front = self._fronts.get(topic, "")
        while True:
            span = front[:_SPAN]
            second = front if len(front) == _SECOND else f"{span}-none"
            wanted = [_range(spans, limit=1), _range(seconds + span, limit=1), _range(ready + second, limit=width)]
            found = ([_entry(key) for key, _, _ in one] for one in self._ranges(wanted))
            first_span, first_second, entries = found
            stray = [spans + one.place for one in first_span if len(one.place) != _SPAN]
            stray += [seconds + one.place for one in first_second if len(one.place) != _SECOND]
            if stray:  # none of ours
                self._transact([_delete(key) for key in stray], [])
            elif not first_span:
                return []
            elif first_span[0].place != span:
                front = first_span[0].place
            elif not first_second:
                self._prune(spans + span, seconds + span)
            elif first_second[0].place != second:
                front = first_second[0].place
            elif not entries:
                self._prune(seconds + second, ready + second)
            else:
                self._fronts[topic] = front
                return entries

    def _prune(self, key: str, below: str) -> None:
        """Remove it if nothing begins with ``below``."""
        none = {"key": _base64(below), "range_end": _base64(_after(below)), "result": "EQUAL"}
        self._transact([_delete(key)], [none | {"target": "CREATE", "create_revision": 0}])

    def _drop(self, entry: Entry, kept: Kept | None) -> None:
        """Remove an entry that is not that of its record, unless that has changed since."""
        condition = _unchanged(self._record(entry.id), kept.version if kept else None)
        self._transact([_delete(self._index(entry.topic, entry.kind) + entry.place)], [condition])

    def _records(self, wanted: Sequence[tuple[str, str]]) -> list[Kept | None]:
        """The records of these ids, which were found at these topics."""
        found = self._ranges([{"key": _base64(self._record(job_id))} for job_id, _ in wanted])
        return [
            Kept(decode(job_id, topic, answer[0][1]), answer[0][2]) if answer else None
            for (job_id, topic), answer in zip(wanted, found, strict=True)
        ]

    def _topics(self) -> list[str]:
        (found,) = self._ranges([_range(f"{self._namespace}/topics/")])
        return [key.rpartition("/")[2] for key, _, _ in found]

    def _ranges(self, ranges: Sequence[dict[str, Any]]) -> Iterator[list[tuple[str, bytes, int]]]:
        """Key, value and revision of all that is in each range."""
        for first in range(0, len(ranges), _OPERATIONS):
            some = [{"request_range": one} for one in ranges[first : first + _OPERATIONS]]
            answer = self._transact(some, [])
            assert answer is not None
            for response in answer["responses"]:
                found = response["response_range"].get("kvs", [])
                yield [(_text(kv["key"]), b64decode(kv.get("value", "")), int(kv["mod_revision"])) for kv in found]

    def _transact(self, operations: Sequence[Any], conditions: Sequence[Any]) -> dict[str, Any] | None:
        """The answer; None when the conditions do not hold."""
        client = self._client
        wanted = {"compare": list(conditions), "success": list(operations)}
        answer: dict[str, Any] = client.post(client.get_url("/kv/txn"), json=wanted)
        return answer if answer.get("succeeded") else None

    def _record(self, job_id: str) -> str:
        return f"{self._namespace}/jobs/{job_id}"

    def _index(self, topic: str, kind: str) -> str:
        return f"{self._namespace}/at/{topic}/{kind}/"

    def _sign(self, entry: Entry) -> str:
        return self._index(entry.topic, _ALIVE) + entry.place


def _tells(answer: dict[str, Any]) -> bool:
    """Whether it is news that there may be something to claim: a job waits, or a sign of life went by itself."""
    if answer.get("created"):
        return True  # whatever was posted before the server listened
    gone: dict[str, set[str]] = {_ALIVE: set(), CLAIMED: set()}
    for event in answer.get("events", []):
        entry = _entry(_text(event["kv"]["key"]))
        deleted = event.get("type") == "DELETE"
        if not deleted and entry.kind in (READY, DELAYED):
            return True
        if deleted and entry.kind in gone:
            gone[entry.kind].add(entry.place)
    return bool(gone[_ALIVE] - gone[CLAIMED])


def _lines(stream: requests.Response) -> Iterator[bytes]:
    """Each line as soon as it is there."""
    begun = b""
    for chunk in stream.iter_content(None):
        *lines, begun = (begun + chunk).split(b"\n")
        yield from lines


def _entry(key: str) -> Entry:
    topic, kind, place = key.rsplit("/", 3)[1:]
    return Entry(kind, topic, place)


def _range(first: str, *, end: str | None = None, limit: int = 0) -> dict[str, Any]:
    """Up to ``limit`` keys (0: all) that begin with ``first``, or from there to ``end``."""
    return {"key": _base64(first), "range_end": _base64(end or _after(first)), "limit": limit, "keys_only": True}


def _unchanged(key: str, revision: int | None) -> dict[str, Any]:
    condition = {"key": _base64(key), "result": "EQUAL"}
    if revision is None:
        return condition | {"target": "CREATE", "create_revision": 0}
    return condition | {"target": "MOD", "mod_revision": revision}


def _put(key: str, value: bytes, lease: int = 0) -> dict[str, Any]:
    return {"request_put": {"key": _base64(key), "value": _base64(value), "lease": lease}}


def _delete(key: str) -> dict[str, Any]:
    return {"request_delete_range": {"key": _base64(key)}}


def _after(prefix: str) -> str:
    """The end of the range of all keys that begin so."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _base64(value: str | bytes) -> str:
    return b64encode(value.encode() if isinstance(value, str) else value).decode()


def _text(value: str) -> str:
    return b64decode(value).decode("utf-8", "replace")


def _socket(stream: requests.Response) -> socket.socket:
    return socket.socket(fileno=os.dup(stream.raw.fileno()))
