"""A canary in every field of a request that is secret: it is found nowhere but in what the guest itself is given."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.nodes import NETWORK, Answer, CommandLine
from virtflow.requests import SpawnRequest

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

PUBLIC = {
    *("name", "image", "flavor", "vcpus", "memory_mib", "disk_gib", "ephemeral_gib", "swap_mib", "networks"),
    *("config_drive", "availability_zone", "host", "title", "server_group", "min_count", "max_count", "launch_index"),
    *("volumes", "boot_volume", "boot_volume_gib", "delete_volume"),
    "meta",  # shown by `virtflow instance show`
}
"""Fields that are shown to whoever may look at an instance or an operation."""

PASSWORD = "canary-password-1618"
USER_DATA = b"#!/bin/sh\n# canary-user-data-2718\n"
CONTENT = b"canary-file-content-3141\n"
KEY_BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"canary-ssh-key-1414".ljust(32)).decode()
KEY = f"ssh-ed25519 {KEY_BLOB} canary-key-comment-1732"
CANARIES = (
    *(b"canary-password-1618", b"canary-user-data-2718", b"canary-file-content-3141"),
    *(KEY_BLOB.encode(), b"canary-key-comment-1732"),
)
ENVIRONMENT = {"VIRTFLOW_NOTIFICATIONS__DRIVERS": "log,file"}


def forms(canary: bytes) -> Iterator[bytes]:
    """Plain, hexadecimal, and in base64 at each of the three places where it may begin in what is encoded."""
    yield canary
    yield canary.hex().encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + canary)
        yield encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4]


def given_away(command_line: CommandLine, *answers: Answer) -> list[str]:
    """Where a canary can be read: in what was said, and below the state directory, but for the config drives."""
    texts = {f"answer {number}": (answer.out + answer.err).encode() for number, answer in enumerate(answers)}
    for path in command_line.state.rglob("*"):
        if path.is_file() and path.name != "disk.config" and "_base" not in path.parts and path.stat().st_size < 2**26:
            texts[str(path.relative_to(command_line.state))] = path.read_bytes()
    assert any(name.startswith("virtflow.db") for name in texts)
    return [
        f"{canary!r} as {form!r} in {name}"
        for canary in CANARIES
        for form in forms(canary)
        for name, text in texts.items()
        if form in text
    ]


def told(command_line: CommandLine) -> list[Answer]:
    """All that can be asked of the last operation; the files that are written for it are below the state directory."""
    answers = [
        command_line("operation", "show", "--last", "-f", "json"),
        command_line("replay", "events", "--last", "--format", "json"),
        command_line("replay", "export", "--last", "--force", "-o", str(command_line.state / "exported.vfrec")),
        command_line("replay", "html", "--last", "--force", "-o", str(command_line.state / "report.html")),
    ]
    assert [answer.code for answer in answers] == [0] * len(answers), [answer.err for answer in answers]
    exported = zlib.decompress((command_line.state / "exported.vfrec").read_bytes(), wbits=31)
    (command_line.state / "exported").write_bytes(exported)
    assert b"BuildConfigDrive" in exported
    return answers


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    size = {"vcpus": 1, "memory_mib": 32, "disk_gib": 1}
    fields: dict[str, Any] = {"name": "web1", "image": "halt", **size, "networks": [{"network": NETWORK}]}
    fields["admin_password"] = PASSWORD
    fields["user_data"] = base64.b64encode(USER_DATA).decode()
    fields["files"] = [{"path": "/etc/canary", "content": base64.b64encode(CONTENT).decode()}]
    fields["ssh_keys"] = [KEY]
    path = tmp_path / "request.json"
    path.write_text(json.dumps(fields | {"config_drive": True}))
    return path


def words(command_line: CommandLine, request_file: Path, *more: str) -> tuple[str, ...]:
    log = str(command_line.state / "virtflow.log")
    return ("--debug", "--log-file", log, "spawn", "-r", str(request_file), *more)


def test_every_field_of_a_request_is_secret_or_known_to_be_public() -> None:
    assert set(SpawnRequest.model_fields) == {*SpawnRequest.secret_fields} | PUBLIC


def test_the_search_finds_what_is_there(command_line: CommandLine) -> None:
    inside = [b"p" * shift + CANARIES[0] + b"tail" for shift in range(5)]
    leaks = [*inside, inside[1].hex().encode(), *map(base64.b64encode, inside)]
    for number, leak in enumerate(leaks):
        (command_line.state / f"leak-{number}").write_bytes(leak)
    found = {line.rsplit(" ", 1)[1] for line in given_away(command_line)}
    assert found == {f"leak-{number}" for number in range(len(leaks))}


def test_a_spawn_gives_no_secret_away_and_the_guest_still_gets_them(
    command_line: CommandLine, request_file: Path
) -> None:
    plan = command_line(*words(command_line, request_file, "--plan", "-f", "json"), **ENVIRONMENT)
    spawned = command_line(*words(command_line, request_file), **ENVIRONMENT)
    assert (plan.code, spawned.code) == (0, 0), plan.err + spawned.err
    instance = command_line("instance", "show", "web1", "-f", "json")
    assert given_away(command_line, plan, spawned, instance, *told(command_line)) == []
    (drive,) = command_line.state.rglob("disk.config")
    content = drive.read_bytes()
    assert all(canary in content for canary in CANARIES)


@pytest.mark.parametrize("fault", ["BuildConfigDrive:after:raise", "DefineDomain:after:raise"])
def test_a_spawn_that_fails_gives_no_secret_away(command_line: CommandLine, request_file: Path, fault: str) -> None:
    answer = command_line(*words(command_line, request_file), fault=fault, **ENVIRONMENT)
    assert answer.code == 4
    assert given_away(command_line, answer, *told(command_line)) == []
    assert list(command_line.state.rglob("disk.config*")) == []


def test_a_spawn_that_is_killed_while_it_has_the_secrets_gives_none_away(
    command_line: CommandLine, request_file: Path
) -> None:
    assert command_line(*words(command_line, request_file), fault="BuildConfigDrive:before:kill").code == -9
    assert given_away(command_line, *told(command_line)) == []
    resumed = command_line("operation", "resume", "--last")
    assert resumed.code == 0, resumed.err
    assert given_away(command_line, resumed) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("admin_password", f"{PASSWORD}\x07"),
        ("user_data", "canary-user-data-2718 is no base64!"),
        ("ssh_keys", [f'command="x" {KEY}']),
        ("files", [{"path": "relative", "content": base64.b64encode(CONTENT).decode()}]),
        ("files", [{"path": "/etc/canary", "content": CONTENT.decode() + "é"}]),
    ],
)
def test_a_request_that_is_refused_gives_no_secret_away(
    command_line: CommandLine, request_file: Path, field: str, value: Any
) -> None:
    request_file.write_text(json.dumps(json.loads(request_file.read_text()) | {field: value}))
    answer = command_line(*words(command_line, request_file))
    assert answer.code == 2
    assert field in answer.err
    assert given_away(command_line, answer) == []
