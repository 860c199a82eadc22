"""Jobs on Redis (5 or newer): one script swaps a record and its entries, another shows what there is to do.

Moments are Redis' own: a lease ends by the clock of the server, whatever those of the workers say. Everything is kept
under ``{namespace}:``, one slot of a cluster. What Redis has not written to disk is lost with it; recovery posts anew
what is missing.

    {ns}:job:<id>               the record
    {ns}:<kind>:<topic>         sorted set of places (all of score 0: they sort as text); of CLAIMED ones: when they end
    {ns}:topics                 the topics there ever were
    {ns}:news:<topic>           channel: there may be something to claim
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from virtflow.config.options import Config
from virtflow.errors import ConfigurationError
from virtflow.eventletless import without_eventlet
from virtflow.persistence.database import Database
from virtflow.worker.boards.board import READY
from virtflow.worker.boards.news import Listeners, News
from virtflow.worker.boards.server_url import server_url, without_password
from virtflow.worker.boards.stored_board import Kept, Look, StoredBoard
from virtflow.worker.boards.stored_job import KINDS, Entry, StoredJob, decode, encode, id_at

with without_eventlet():
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

_ANSWER = 5.0
"""Seconds within which the server has to answer."""

# KEYS: the record. ARGV: prefix, id, the record as it was or "", the new one or "", index and place of the entry that
# goes, and of the one that comes, its lease in milliseconds or "" (it stands in no index by time), topic. Replaces the
# record if it is as it was; an index that is "" is none.
_SWAP = """
local prefix, id, old, new = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local from, from_place, to, to_place, lease, topic = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
if (redis.call('GET', KEYS[1]) or '') ~= old then
    return 0
end
if from ~= '' then
    redis.call('ZREM', prefix .. from, from_place)
end
if new == '' then
    redis.call('DEL', KEYS[1])
    return 1
end
redis.call('SET', KEYS[1], new)
redis.call('SADD', prefix .. 'topics', topic)
if to ~= '' then
    local score = 0
    if lease ~= '' then
        local time = redis.call('TIME')
        score = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(lease)
    else
        redis.call('PUBLISH', prefix .. 'news:' .. topic, id)
    end
    redis.call('ZADD', prefix .. to, score, to_place)
end
return 1
"""

# ARGV: prefix, how many, 1 to look for lost ones, topics. Returns the milliseconds until more is overdue (-1: nothing
# foreseen), how many entries without a record were removed, then kind, topic, place and record of each.
_LOOK = """
local prefix, width, lost = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found, due, removed = {}, -1, 0
local function show(kind, topic, places)
    for _, place in ipairs(places) do
        local record = redis.call('GET', prefix .. 'job:' .. string.sub(place, 21))
        if record then
            table.insert(found, kind)
            table.insert(found, topic)
            table.insert(found, place)
            table.insert(found, record)
        else
            removed = removed + redis.call('ZREM', prefix .. kind .. ':' .. topic, place)
        end
    end
end
local function foresee(moment)
    if due == -1 or moment - now < due then
        due = math.max(moment - now, 1)
    end
end
for number = 4, #ARGV do
    local topic = ARGV[number]
    show('READY', topic, redis.call('ZRANGE', prefix .. 'READY:' .. topic, 0, width - 1))
    local delayed = prefix .. 'DELAYED:' .. topic
    local passed = string.format('[0.%014d999.~', now)
    show('DELAYED', topic, redis.call('ZRANGEBYLEX', delayed, '-', passed, 'LIMIT', 0, width))
    local later = redis.call('ZRANGEBYLEX', delayed, '(' .. string.sub(passed, 2), '+', 'LIMIT', 0, 1)
    if later[1] then
        foresee(math.floor(tonumber(string.sub(later[1], 3, 19)) / 1000) + 1)
    end
    if lost == '1' then
        local claimed = prefix .. 'CLAIMED:' .. topic
        show('CLAIMED', topic, redis.call('ZRANGEBYSCORE', claimed, '-inf', now, 'LIMIT', 0, width))
        local next = redis.call('ZRANGEBYSCORE', claimed, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
        if next[2] then
            foresee(tonumber(next[2]))
        end
    end
end
table.insert(found, 1, removed)
table.insert(found, 1, due)
return found
"""


def open_board(config: Config, _database: Database) -> StoredBoard:
    """The board at ``[jobboard] url``. Raises ConfigurationError when that is no URL of a Redis server."""
    options = config.jobboard
    url = server_url(options.url, ("redis", "rediss", "unix"), "redis://host:6379/0")
    try:
        store = RedisStore(url, options.namespace)
    except ValueError as error:
        raise ConfigurationError(group="jobboard", option="url", reason=str(error)) from error
    return StoredBoard(store, options.max_attempts)


class RedisStore:
    """A ``Store``. See there. Raises ValueError for a URL that is none."""

    unreachable = (redis.RedisError, OSError)

    def __init__(self, url: str, namespace: str) -> None:
        self.url = without_password(url)
        self.news = News()
        self._prefix = f"{{{namespace}}}:"
        self._client: Any = redis.Redis.from_url(  # its answers are typed for text and bytes, for now and later
            url,
            # Scripts and channels are all that is used; the newer protocol announces itself with commands that older
            # servers refuse.
            protocol=2,
            socket_timeout=_ANSWER,
            socket_connect_timeout=_ANSWER,
            retry=Retry(NoBackoff(), 0),
        )
        self._swap = self._client.register_script(_SWAP)
        self._look = self._client.register_script(_LOOK)
        self._listeners = Listeners(self._listen, self.unreachable)
        self._channels: dict[str, Any] = {}

    def read(self, job_id: str) -> Kept | None:
        raw = self._client.get(self._record(job_id))
        return None if raw is None else Kept(decode(job_id, "", raw), raw)

    def swap(self, old: Kept | None, new: StoredJob | None, lease: float | None = None) -> bool:
        one = old.job if old is not None else new
        assert one is not None
        record = b"" if new is None else encode(new)
        moves = [*_at(old.entry if old else None), *_at(new.entry if new else None)]
        if moves[:2] == moves[2:] and lease is None:
            moves = [""] * 4  # a claim that is only marked ends when it would have ended
        milliseconds = "" if lease is None else int(lease * 1000)
        arguments = [self._prefix, one.id, old.version if old else b"", record, *moves, milliseconds, one.topic]
        return bool(self._swap(keys=[self._record(one.id)], args=arguments))

    def look(self, topics: Sequence[str], width: int, lost: bool) -> Look:
        due, removed, *found = self._look(keys=[], args=[self._prefix, width, int(lost), *topics])
        look = Look(due=None if due < 0 else due / 1000, removed=removed > 0)
        for kind, topic, place, raw in zip(*[iter(found)] * 4, strict=True):
            entry = Entry(kind.decode(), topic.decode(), place.decode("utf-8", "replace"))
            job = decode(entry.id, entry.topic, raw)
            if job.foreign is None and job.entry != entry:
                self._drop(entry, raw)
                look.removed = True
                continue
            (look.ready if entry.kind == READY else look.overdue).append(Kept(job, raw, entry))
        return look

    def listing(self, topic: str | None, limit: int) -> list[Kept]:
        topics = [topic] if topic else [name.decode() for name in self._client.smembers(self._prefix + "topics")]
        found = []
        for name in topics:
            for kind in KINDS:
                places = self._client.zrange(f"{self._prefix}{kind}:{name}", 0, limit - 1)
                ids = [id_at(place.decode("utf-8", "replace")) for place in places]
                records = self._client.mget([self._record(job_id) for job_id in ids]) if ids else []
                found += [(job_id, name, raw) for job_id, raw in zip(ids, records, strict=True) if raw is not None]
        return [Kept(decode(job_id, name, raw), raw) for job_id, name, raw in found]

    def listen(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self._listeners.to(topic)

    def reconnect(self) -> None:
        """Connections are made anew when they are used."""

    def close(self) -> None:
        self._listeners.stop(self._interrupt)
        self._client.close()

    def _listen(self, topic: str) -> None:
        with self._client.pubsub() as channel:
            self._channels[topic] = channel
            channel.subscribe(f"{self._prefix}news:{topic}")
            while not self._listeners.stopped:
                # The confirmation of the subscription counts: something may have been posted before it.
                if channel.get_message(timeout=_ANSWER) is not None:
                    self.news.heard([topic])

    def _interrupt(self) -> None:
        for channel in list(self._channels.values()):
            connection = getattr(channel.connection, "_sock", None)
            if connection is not None:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _drop(self, entry: Entry, raw: bytes) -> None:
        """Remove an entry that is not that of its record, unless that has changed since."""
        arguments: list[Any] = [self._prefix, entry.id, raw, raw, *_at(entry), *_at(None), "", entry.topic]
        self._swap(keys=[self._record(entry.id)], args=arguments)

    def _record(self, job_id: str) -> str:
        return f"{self._prefix}job:{job_id}"


def _at(entry: Entry | None) -> tuple[str, str]:
    return ("", "") if entry is None else (f"{entry.kind}:{entry.topic}", entry.place)
