"""What the process that injects does when methods cannot, items fail, or taking down fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from virtflow.injection import worker
from virtflow.injection.filesystem import GuestFileError, Unsupported
from virtflow.injection.plan import GuestItems, InjectionPlan, InjectionResult

ITEMS = GuestItems(
    keys=("ssh-ed25519 A",),
    network=b"auto lo\n",
    metadata={"a": "b"},
    admin_password="canary",
    files={"/opt/x": b"canary"},
)


class Guest:
    """A file system that fails where it is told to."""

    def __init__(self, setup: Exception | None = None, teardown: Exception | None = None, broken: str = "-") -> None:
        self.calls: list[str] = []
        self._setup, self._teardown, self._broken = setup, teardown, broken

    def setup(self) -> None:
        self.calls.append("setup")
        if self._setup is not None:
            raise self._setup

    def teardown(self) -> None:
        self.calls.append("teardown")
        if self._teardown is not None:
            raise self._teardown

    def read(self, path: str) -> bytes:
        return b"root:*:1::::::\n" if path == "/etc/shadow" else b""

    def _do(self, path: str, *_rest: Any) -> None:
        if path.startswith(self._broken):
            raise GuestFileError("is broken")

    make_path = append = replace = set_permissions = set_ownership = _do


def plan(
    methods: tuple[str, ...] = ("fuse",), mandatory: tuple[str, ...] = ("files",), items: GuestItems = ITEMS
) -> Any:
    return InjectionPlan(
        disk=Path("/d"),
        disk_format="raw",
        partition=-1,
        methods=methods,
        items=items,
        mandatory=frozenset(mandatory),
    )


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> dict[str, Guest]:
    found: dict[str, Guest] = {}
    monkeypatch.setattr(worker, "_filesystem", lambda _plan, method, _directory: found[method])
    return found


def test_all_items_are_injected_and_the_file_system_is_left(guests: dict[str, Guest], tmp_path: Path) -> None:
    guests["fuse"] = Guest()
    everything = ("key", "network", "metadata", "admin_password", "files")
    assert worker.inject(plan(), tmp_path) == InjectionResult(everything, {}, "fuse")
    assert guests["fuse"].calls == ["setup", "teardown"]


def test_an_item_that_need_not_succeed_is_left_out_with_its_reason(guests: dict[str, Guest], tmp_path: Path) -> None:
    guests["fuse"] = Guest(broken="/root")
    done = worker.inject(plan(), tmp_path)
    assert "key" not in done.injected
    assert done.failed == {"key": "is broken"}


def test_an_item_that_must_succeed_ends_it_and_the_file_system_is_left(
    guests: dict[str, Guest], tmp_path: Path
) -> None:
    guests["fuse"] = Guest(broken="/opt")
    with pytest.raises(worker.MandatoryFailed, match=r"^files: /opt/x is broken$"):
        worker.inject(plan(), tmp_path)
    assert guests["fuse"].calls == ["setup", "teardown"]


def test_the_next_method_is_tried_when_one_cannot(guests: dict[str, Guest], tmp_path: Path) -> None:
    guests.update(fuse=Guest(Unsupported("no")), debugfs=Guest(OSError(5, "gone")), libguestfs=Guest())
    done = worker.inject(plan(("fuse", "debugfs", "libguestfs")), tmp_path)
    assert done.method == "libguestfs"
    assert all(guest.calls == ["setup", "teardown"] for guest in guests.values())


def test_when_no_method_can_only_something_mandatory_makes_it_fail(guests: dict[str, Guest], tmp_path: Path) -> None:
    guests.update(fuse=Guest(Unsupported("not root")), debugfs=Guest(Unsupported("not clean")))
    methods = ("fuse", "debugfs")
    with pytest.raises(worker.MandatoryFailed, match=r"^fuse: not root; debugfs: not clean$"):
        worker.inject(plan(methods), tmp_path / ".")
    other = tmp_path / "other"
    other.mkdir()
    done = worker.inject(plan(methods, mandatory=()), other)
    assert done == InjectionResult((), dict.fromkeys(ITEMS.wanted(), "fuse: not root; debugfs: not clean"), None)


def test_what_is_mandatory_but_not_asked_for_cannot_fail(guests: dict[str, Guest], tmp_path: Path) -> None:
    guests["fuse"] = Guest(Unsupported("no"))
    done = worker.inject(plan(items=GuestItems(metadata={"a": "b"})), tmp_path)
    assert done.failed == {"metadata": "fuse: no"}


def test_a_disk_that_cannot_be_left_cleanly_is_a_failure(guests: dict[str, Guest], tmp_path: Path) -> None:
    guests["fuse"] = Guest(teardown=OSError(5, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        worker.inject(plan(mandatory=()), tmp_path)


def test_a_plan_arrives_as_it_was_sent() -> None:
    sent = plan(("debugfs", "fuse"), ("files", "key"))
    assert InjectionPlan.from_json(sent.to_json()) == sent
    nothing = plan(items=GuestItems())
    assert InjectionPlan.from_json(nothing.to_json()) == nothing


def test_secrets_do_not_show() -> None:
    assert "canary" not in repr(plan())
