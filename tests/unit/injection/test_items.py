"""What the items write where in the guest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from virtflow.injection.filesystem import GuestFileError, Unsupported
from virtflow.injection.items import INJECTORS, hash_password
from virtflow.injection.plan import ITEMS, GuestItems
from virtflow.injection.rooted import RootedFiles

KEY = "ssh-ed25519 AAAAC3 me@home"


class Guest(RootedFiles):
    """A real directory, with owners only noted: a test need not be root."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.owners: dict[str, tuple[int, int]] = {}
        self.enter(root)

    def setup(self) -> None: ...

    def teardown(self) -> None:
        self.leave()

    def set_ownership(self, path: str, user: int, group: int) -> None:
        self.owners[path] = (user, group)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    try:
        return Guest(tmp_path)
    except Unsupported as error:
        pytest.skip(str(error))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_item_has_an_injector_in_order() -> None:
    assert tuple(INJECTORS) == ITEMS


def test_keys_come_behind_those_that_are_there_and_are_roots_alone(guest: Guest) -> None:
    ssh = guest.root / "root/.ssh"
    ssh.mkdir(parents=True)
    (ssh / "authorized_keys").write_text("ssh-rsa OLD")
    INJECTORS["key"](guest, GuestItems(keys=(KEY, "ssh-rsa OLD")))
    lines = (ssh / "authorized_keys").read_text().splitlines()
    assert lines[0] == "ssh-rsa OLD"
    assert [line for line in lines[1:] if not line.startswith("#")] == [KEY]
    assert (mode(ssh), mode(ssh / "authorized_keys")) == (0o700, 0o600)
    assert guest.owners == {"/root/.ssh": (0, 0), "/root/.ssh/authorized_keys": (0, 0)}


@pytest.mark.parametrize("item", ITEMS)
def test_injecting_again_leaves_the_same(guest: Guest, item: str) -> None:
    (guest.root / "etc").mkdir()
    (guest.root / "etc/shadow").write_text("root:*:1:0:99999:7:::\n")
    items = GuestItems(
        keys=(KEY,), network=b"auto lo\n", metadata={"a": "b"}, admin_password="sesame", files={"/opt/x": b"y"}
    )

    def content() -> dict[str, bytes]:
        found = {str(path): path.read_bytes() for path in guest.root.rglob("*") if path.is_file()}
        return {path: re.sub(rb"\$6\$\S+?:", b"HASH:", text) for path, text in found.items()}

    INJECTORS[item](guest, items)
    first = content()
    INJECTORS[item](guest, items)
    assert content() == first


def test_network_and_metadata_have_their_places(guest: Guest) -> None:
    INJECTORS["network"](guest, GuestItems(network=b"auto lo\n"))
    INJECTORS["metadata"](guest, GuestItems(metadata={"role": "wéb"}))
    assert (guest.root / "etc/network/interfaces").read_bytes() == b"auto lo\n"
    assert mode(guest.root / "etc/network/interfaces") == 0o644
    assert json.loads((guest.root / "meta.js").read_text()) == {"role": "wéb"}


def test_the_password_of_root_alone_is_set(guest: Guest) -> None:
    (guest.root / "etc").mkdir()
    shadow = guest.root / "etc/shadow"
    shadow.write_bytes(b"daemon:*:1:0:99999:7:::\nroot:!:0:0:99999:7:::\nr\xffoot:x:1::::::\n")
    shadow.chmod(0o640)
    INJECTORS["admin_password"](guest, GuestItems(admin_password="sesame"))
    first, root, last, _ = shadow.read_bytes().split(b"\n")
    assert (first, last) == (b"daemon:*:1:0:99999:7:::", b"r\xffoot:x:1::::::")
    name, hashed, changed, *rest = root.decode().split(":")
    assert name == "root"
    assert hashed.startswith("$6$")
    assert int(changed) == int(time.time()) // 86400
    assert rest == ["0", "99999", "7", "", "", ""]
    assert mode(shadow) == 0o640


@pytest.mark.parametrize("content", ["", "toor:x:1::::::\n"])
def test_a_guest_without_a_root_gets_no_password(guest: Guest, content: str) -> None:
    (guest.root / "etc").mkdir()
    (guest.root / "etc/shadow").write_text(content)
    with pytest.raises(GuestFileError, match="no root"):
        INJECTORS["admin_password"](guest, GuestItems(admin_password="sesame"))


def test_a_hash_is_what_openssl_makes_of_the_same_password_and_salt() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    hashed = hash_password("pässword with spaces")
    salt = hashed.split("$")[2]
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
        input="pässword with spaces\n".encode(),
        check=True,
        capture_output=True,
    )
    assert made.stdout.decode().strip() == hashed
    assert hash_password("x") != hash_password("x")


def test_a_password_that_is_too_long_to_hash_is_refused() -> None:
    with pytest.raises(GuestFileError, match="cannot be hashed"):
        hash_password("x" * 600)


def test_a_file_that_fails_is_named_and_not_quoted(guest: Guest) -> None:
    (guest.root / "opt").write_text("a file")
    with pytest.raises(GuestFileError, match=r"^/opt/x/y ") as caught:
        INJECTORS["files"](guest, GuestItems(files={"/opt/x/y": b"canary"}))
    assert "canary" not in str(caught.value)
