"""GlanceSource and the cache against a real Glance, and against servers that misbehave as real ones do."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socketserver
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.lab.glance import Glance, GlanceMissing, default_cache, glance
from virtflow.activity import Activity
from virtflow.errors import ImageRefused, ImageUnavailable, InvalidRequest, NotFound
from virtflow.images.cache import ImageCache
from virtflow.images.glance import GlanceSource
from virtflow.images.qemu_img import QemuImg
from virtflow.images.records import ImageRecord

MIB = 1 << 20

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server() -> Iterator[Glance]:
    try:
        with glance(default_cache()) as running:
            yield running
    except GlanceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def source(server: Glance) -> GlanceSource:
    return GlanceSource(server.endpoint, timeout=20)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(os.urandom(3 * MIB) + bytes(5 * MIB) + os.urandom(MIB))
    return path


@pytest.fixture
def qcow2(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "_base", tmp_path / "locks", QemuImg())


def test_an_image_is_found_by_name_and_id_with_all_that_glance_knows(
    server: Glance, source: GlanceSource, qcow2: Path
) -> None:
    name = f"debian {uuid.uuid4()}"
    image_id = server.upload(qcow2, name, "qcow2", min_disk=2, min_ram=64, hw_disk_bus="scsi")
    record = source.get(name)
    content = qcow2.read_bytes()
    assert record == ImageRecord(
        id=image_id,
        name=name,
        source="glance",
        disk_format="qcow2",
        size=len(content),
        checksum=("sha512", hashlib.sha512(content).hexdigest()),
        min_disk=2,
        min_ram=64,
        virtual_size=9 * MIB,
        properties={"hw_disk_bus": "scsi"},
    )
    assert source.get(image_id) == record
    assert record in source.list()


def test_an_image_becomes_a_raw_base(server: Glance, source: GlanceSource, cache: ImageCache, qcow2, raw) -> None:
    record = source.get(server.upload(qcow2, "plain", "qcow2"))
    base = cache.fetch(record, source)
    assert Path(base.path).read_bytes() == raw.read_bytes()
    assert base.sha256 == hashlib.sha256(qcow2.read_bytes()).hexdigest()


def test_reading_goes_on_from_any_offset(server: Glance, source: GlanceSource, raw: Path) -> None:
    record = source.get(server.upload(raw, "ranges", "raw"))
    content = raw.read_bytes()
    for offset in (0, 1, 3 * MIB + 7, len(content) - 1):
        assert b"".join(source.read(record, offset)) == content[offset:]


def test_reading_goes_on_through_a_keystone_session_too(server: Glance, raw: Path) -> None:
    source = GlanceSource(server.endpoint, auth={"auth_type": "none", "endpoint": server.endpoint}, timeout=20)
    record = source.get(server.upload(raw, "session", "raw"))
    assert b"".join(source.read(record, 0)) == raw.read_bytes()
    with contextlib.closing(source.read(record, 4 * MIB)) as chunks:
        first = next(chunks)
    assert first == raw.read_bytes()[4 * MIB : 4 * MIB + len(first)]


def test_a_part_is_completed_with_a_range_request(
    server: Glance, source: GlanceSource, cache: ImageCache, raw: Path, tmp_path: Path
) -> None:
    record = source.get(server.upload(raw, "resumed", "raw"))
    name = hashlib.sha1(record.id.encode()).hexdigest()
    (tmp_path / "_base").mkdir()
    (tmp_path / "_base" / f"{name}.part").write_bytes(raw.read_bytes()[: 2 * MIB])
    asked: list[int] = []

    class Watched:
        name, get, list = source.name, source.get, source.list

        def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
            asked.append(offset)
            return source.read(record, offset)

    base = cache.fetch(record, Watched())
    assert asked == [2 * MIB]
    assert Path(base.path).read_bytes() == raw.read_bytes()


def test_an_image_damaged_in_the_store_is_not_published(
    server: Glance, source: GlanceSource, cache: ImageCache, raw: Path
) -> None:
    record = source.get(server.upload(raw, "damaged", "raw"))
    with server.stored(record.id).open("r+b") as file:
        file.seek(MIB)
        file.write(b"damage")
    with pytest.raises(ImageUnavailable, match="its sha512 checksum does not match"):
        cache.fetch(record, source)
    assert cache.bases() == []
    assert cache.leftovers() == []


def test_a_hostile_image_in_glance_is_refused(
    server: Glance, source: GlanceSource, cache: ImageCache, tmp_path: Path
) -> None:
    """Glance refuses a backing file itself; the bit that marks an image corrupt passes its checks."""
    path = tmp_path / "bad"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"], check=True)
    with path.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 2))
    record = source.get(server.upload(path, "bad", "raw"))
    with pytest.raises(ImageRefused, match="declared raw, but its content is qcow2"):
        cache.fetch(record, source)
    with pytest.raises(ImageRefused, match="marked corrupt"):
        cache.fetch(replace(record, disk_format="qcow2"), source)
    assert cache.bases() == []


def test_a_name_that_two_images_have_needs_an_id(server: Glance, source: GlanceSource, raw: Path) -> None:
    name = f"twice {uuid.uuid4()}"
    ids = {server.upload(raw, name, "raw") for _ in range(2)}
    with pytest.raises(InvalidRequest, match="2 images are called") as ambiguous:
        source.get(name)
    assert ambiguous.value.field == "image"
    assert {source.get(image_id).id for image_id in ids} == ids


def test_an_image_that_is_a_uuid_by_name_only_is_found(server: Glance, source: GlanceSource, raw: Path) -> None:
    name = str(uuid.uuid4())
    assert source.get(name if server.upload(raw, name, "raw") else "").name == name


@pytest.mark.parametrize("name", ["in:a,b", 'quote"d', "a&b=c", "x/../y", "é", "%41", "100%", "a,b"])
def test_an_odd_name_is_only_a_name(name: str, server: Glance, source: GlanceSource, raw: Path) -> None:
    image_id = server.upload(raw, name, "raw")
    try:
        assert source.get(name).id == image_id
    finally:
        server.delete(image_id)


@pytest.mark.parametrize("name", ["", "nothing", "in:nothing", str(uuid.UUID(int=7)), "nul\0", "\ud800", "x" * 10_000])
def test_what_is_not_there_is_not_found(name: str, source: GlanceSource) -> None:
    with pytest.raises(NotFound) as missing:
        source.get(name)
    assert missing.value.kind == "image"


def test_an_image_without_data_is_unavailable(server: Glance, source: GlanceSource) -> None:
    image_id = server.create("no data yet", "raw")
    with pytest.raises(ImageUnavailable, match="its status is queued"):
        source.get(image_id)


def test_an_image_deleted_meanwhile_is_not_found(server: Glance, source: GlanceSource, raw: Path) -> None:
    record = source.get(server.upload(raw, "short life", "raw"))
    server.delete(record.id)
    with pytest.raises(NotFound):
        list(source.read(record, 0))


def test_eight_threads_download_once(server: Glance, source: GlanceSource, cache: ImageCache, qcow2: Path) -> None:
    record = source.get(server.upload(qcow2, "popular", "qcow2"))
    reads: list[int] = []

    class Counted:
        name, get, list = source.name, source.get, source.list

        def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
            reads.append(offset)
            return source.read(record, offset)

    with ThreadPoolExecutor(8) as pool:
        bases = set(pool.map(lambda _: cache.fetch(record, Counted()), range(8)))
    assert len(bases) == 1
    assert reads == [0]


# -- servers that misbehave -------------------------------------------------------------------------------------------


@contextmanager
def proxy(target: str, alter: Callable[[bytes, bytes], Iterator[bytes]]) -> Iterator[str]:
    """An HTTP proxy of one request per connection: ``alter`` gets the request and the whole answer of Glance."""
    import socket

    port = urlsplit(target).port

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = b""
            while b"\r\n\r\n" not in request and (more := self.request.recv(65536)):
                request += more
            request = request.replace(b"Connection: keep-alive", b"Connection: close")
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                upstream.sendall(request)
                answer = b"".join(iter(lambda: upstream.recv(1 << 16), b""))
            try:
                for piece in alter(request, answer):
                    self.request.sendall(piece)
            except OSError:
                return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}"
        finally:
            running.shutdown()
            thread.join()


def is_download(request: bytes) -> bool:
    return request.partition(b"\r\n")[0].partition(b" HTTP")[0].endswith(b"/file")


def test_a_connection_that_breaks_is_resumed_by_the_next_fetch(
    server: Glance, cache: ImageCache, raw: Path, tmp_path: Path
) -> None:
    image_id = server.upload(raw, "breaks", "raw")
    ranges: list[bool] = []

    def broken(request: bytes, answer: bytes) -> Iterator[bytes]:
        if is_download(request):
            ranges.append(b"Range: bytes=" in request)
            yield answer[: 4 * MIB + 4096]
        else:
            yield answer

    with proxy(server.endpoint, broken) as endpoint:
        source = GlanceSource(endpoint, timeout=10)
        record = source.get(image_id)
        for _ in range(2):
            with pytest.raises(ImageUnavailable, match="cannot fetch image"):
                cache.fetch(record, source)
        cache.fetch(record, source)
    assert ranges == [False, True, True]
    assert Path(cache.bases()[0].path).read_bytes() == raw.read_bytes()


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(server: Glance, raw: Path) -> None:
    image_id = server.upload(raw, "no ranges", "raw")

    def without_ranges(request: bytes, answer: bytes) -> Iterator[bytes]:
        if is_download(request):
            content = raw.read_bytes()
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            yield head.encode() + content
        else:
            yield answer

    with proxy(server.endpoint, without_ranges) as endpoint:
        source = GlanceSource(endpoint, timeout=10)
        record = source.get(image_id)
        assert b"".join(source.read(record, 2 * MIB + 5)) == raw.read_bytes()[2 * MIB + 5 :]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
def test_a_server_that_fails_is_unavailable(answer: bytes, server: Glance) -> None:
    with proxy(server.endpoint, lambda _request, _answer: iter([answer])) as endpoint:
        source = GlanceSource(endpoint, timeout=5)
        for ask in (
            lambda: source.get("x"),
            source.list,
            lambda: list(source.read(ImageRecord("i", "n", "g", "raw"), 0)),
        ):
            with pytest.raises(ImageUnavailable):
                ask()


def test_html_instead_of_an_image_is_unavailable(server: Glance) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\noops"
    with (
        proxy(server.endpoint, lambda _request, _answer: iter([page])) as endpoint,
        pytest.raises(ImageUnavailable, match="no image data"),
    ):
        list(GlanceSource(endpoint).read(ImageRecord("i", "n", "g", "raw"), 0))


def test_a_server_that_falls_silent_times_out(server: Glance, raw: Path) -> None:
    image_id = server.upload(raw, "silent", "raw")
    released = threading.Event()

    def silent(request: bytes, answer: bytes) -> Iterator[bytes]:
        if is_download(request):
            yield answer[:MIB]
            released.wait(20)
        else:
            yield answer

    with proxy(server.endpoint, silent) as endpoint:
        source = GlanceSource(endpoint, timeout=1)
        record = source.get(image_id)
        begin = time.monotonic()
        with pytest.raises(ImageUnavailable):
            list(source.read(record, 0))
        assert time.monotonic() - begin < 10
        released.set()


def test_a_cancelled_download_from_glance_stops_at_once(server: Glance, source: GlanceSource, cache, raw) -> None:
    record = source.get(server.upload(raw, "cancelled", "raw"))

    class Cancelled(Activity):
        done = 0

        def report(self, done: int, total: int | None) -> None:
            self.done = done

        def cancelled(self) -> bool:
            return self.done >= MIB

    with pytest.raises(Exception, match="cancelled during FetchBase"):
        cache.fetch(record, source, Cancelled("FetchBase"))
    assert cache.fetch(record, source).virtual_size == 9 * MIB


def test_nobody_listening_is_one_clear_line() -> None:
    with pytest.raises(ImageUnavailable, match="cannot fetch image 'x': ") as unreachable:
        GlanceSource("http://127.0.0.1:9", timeout=2).get("x")
    assert "\n" not in str(unreachable.value)


@pytest.mark.parametrize("how", ["token", "password"])
def test_no_secret_reaches_logs_or_errors(
    how: str, server: Glance, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = f"canary-{uuid.uuid4()}"

    def echo(request: bytes, _answer: bytes) -> Iterator[bytes]:
        body = b"<html>denied: " + request + secret.encode() + b"</html>"
        yield b"HTTP/1.1 401 No\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    with proxy(server.endpoint, echo) as endpoint:
        auth = {"auth_url": f"{endpoint}/v3", "username": "u", "password": secret, "project_name": "p"}
        options = {"token": secret} if how == "token" else {"auth": {**auth, "user_domain_id": "default"}}
        source = GlanceSource(endpoint, timeout=5, **options)
        for ask in (lambda: source.get("x"), source.list):
            with pytest.raises(ImageUnavailable) as denied:
                ask()
            assert secret not in str(denied.value)
    assert caplog.records
    assert secret not in caplog.text


def test_a_base_is_found_by_the_sha1_of_its_id_with_or_without_a_hint_and_despite_a_lie(
    server: Glance, source: GlanceSource, raw: Path
) -> None:
    plain, hinted = (server.upload(raw, f"base {uuid.uuid4()}", "raw") for _ in range(2))
    sha1 = {each: hashlib.sha1(each.encode()).hexdigest() for each in (plain, hinted)}
    liar = server.upload(raw, "liar", "raw", image_id_sha1=sha1[plain])
    assert source.find_by_sha1(sha1[plain]).id == plain != liar
    assert source.find_by_sha1(sha1[hinted]).id == hinted
    honest = server.upload(raw, "honest", "raw")
    with pytest.raises(NotFound):
        source.find_by_sha1("0" * 40)
    assert source.find_by_sha1(hashlib.sha1(honest.encode()).hexdigest()).id == honest
