"""Files below a directory that an enemy has filled."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.injection.filesystem import READ_LIMIT, GuestFileError, Unsupported
from virtflow.injection.rooted import RootedFiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The guest's root; beside it lies the host, which nothing may touch."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").write_text("of the host")
    (tmp_path / "guest" / "etc").mkdir(parents=True)
    return tmp_path / "guest"


@pytest.fixture
def files(root: Path) -> Iterator[RootedFiles]:
    rooted = RootedFiles()
    try:
        rooted.enter(root)
    except Unsupported as error:
        pytest.skip(str(error))
    yield rooted
    rooted.leave()


@pytest.fixture(autouse=True)
def host_stays_as_it_was(root: Path) -> Iterator[None]:
    yield
    host = root.parent / "host"
    assert {path.name: path.read_text() for path in host.iterdir()} == {"secret": "of the host"}


def test_a_file_is_made_replaced_and_grows(files: RootedFiles, root: Path) -> None:
    files.replace("/etc/motd", b"a longer text")
    assert stat.S_IMODE((root / "etc/motd").stat().st_mode) == 0o600
    files.set_permissions("/etc/motd", 0o644)
    files.replace("/etc/motd", b"short")
    files.append("/etc/motd", b" but growing")
    assert files.read("/etc/motd") == b"short but growing"
    assert stat.S_IMODE((root / "etc/motd").stat().st_mode) == 0o644


def test_paths_are_made_with_what_is_missing_above_them(files: RootedFiles, root: Path) -> None:
    files.make_path("/a/b/c")
    files.make_path("/a/b/c")
    files.make_path("/")
    assert (root / "a/b/c").is_dir()


def test_an_absolute_link_begins_at_the_guests_root(files: RootedFiles, root: Path) -> None:
    host = root.parent / "host"
    (root / "etc").rmdir()
    (root / "etc").symlink_to(host)
    with pytest.raises(FileNotFoundError):
        files.read("/etc/secret")
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on what is missing
        files.make_path("/etc")
    (root / str(host)[1:]).mkdir(parents=True)
    files.replace("/etc/secret", b"of the guest")
    assert (root / str(host)[1:] / "secret").read_bytes() == b"of the guest"


def test_climbing_ends_at_the_guests_root(files: RootedFiles, root: Path) -> None:
    (root / "up").symlink_to("../../../../../../../..")
    (root / "outside").symlink_to("../host")
    files.replace("/up/found", b"x")
    assert (root / "found").read_bytes() == b"x"
    files.replace("/etc/../../../found", b"y")
    assert (root / "found").read_bytes() == b"y"
    with pytest.raises(FileNotFoundError):
        files.read("/outside/secret")


def test_a_link_to_a_file_leads_to_the_guests_file(files: RootedFiles, root: Path) -> None:
    (root / "shadow").write_bytes(b"of the guest")
    (root / "etc/shadow").symlink_to("/shadow")
    files.replace("/etc/shadow", b"new")
    assert (root / "shadow").read_bytes() == b"new"


def test_a_link_into_proc_leads_nowhere(files: RootedFiles, root: Path) -> None:
    (root / "etc/passwd").symlink_to("/proc/self/root/etc/passwd")
    with pytest.raises(FileNotFoundError):
        files.read("/etc/passwd")


def test_a_loop_of_links_is_an_error(files: RootedFiles, root: Path) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        files.read("/loop")


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_does_not_block(files: RootedFiles, root: Path) -> None:
    os.mkfifo(root / "etc/pipe")
    for action in (
        lambda: files.read("/etc/pipe"),
        lambda: files.replace("/etc/pipe", b"x"),
        lambda: files.append("/etc/pipe", b"x"),
        lambda: files.set_permissions("/etc/pipe", 0o777),
    ):
        with pytest.raises(GuestFileError, match="not a regular file"):
            action()


def test_a_directory_is_no_file(files: RootedFiles) -> None:
    with pytest.raises(GuestFileError, match="not a regular file"):
        files.replace("/etc", b"x")
    files.set_permissions("/etc", 0o700)


def test_an_endless_file_is_not_read_to_its_end(files: RootedFiles, root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(GuestFileError, match=f"more than {READ_LIMIT}"):
        files.read("/huge")


def test_a_guest_that_exchanges_directories_for_links_meanwhile_still_gets_nothing_out(
    files: RootedFiles, root: Path
) -> None:
    (root / "real").mkdir()
    (root / "swap").symlink_to("../../host")
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            for source, target in (("real", "x"), ("swap", "real"), ("real", "swap"), ("x", "real")):
                os.rename(root / source, root / target)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(2000):
            try:
                files.replace("/real/secret", b"of the guest")
            except OSError:
                continue
    finally:
        done.set()
        thread.join()


def test_outside_of_a_directory_nothing_can_be_done(root: Path) -> None:
    rooted = RootedFiles()
    rooted.leave()
    with pytest.raises(OSError, match="Bad file descriptor"):
        rooted.read("/etc/motd")
