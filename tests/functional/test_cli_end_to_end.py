"""The life of an instance as a person types it, and what must never be seen of its secrets."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.nodes import CommandLine, Console, command_line_up

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor
    from virtflow.testing.guest import GuestImage

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5QGJLjXBJYgh9J0dHbU2rmKp0NnYVbdBzZpbRSLVh0 me@here"
TASK_FIELDS = {"name", "flow", "host", "state", "attempts", "started_at", "duration_ms", "progress", "error"}
OPERATION_FIELDS = {
    *("id", "kind", "target", "state", "outcome", "started_at", "finished_at", "error", "debts", "tasks"),
}


@pytest.fixture
def fresh(embed_root: Path, _session_hypervisor: Hypervisor, tmp_path: Path) -> Iterator[CommandLine]:
    """A host on which nobody has done anything: its catalog is empty."""
    with command_line_up(embed_root, tmp_path / "catalog") as command_line:
        yield command_line


def done(command_line: CommandLine, *words: str) -> str:
    answer = command_line(*words)
    assert answer.code == 0, answer
    return answer.out


def test_an_instance_from_its_image_to_the_last_trace_of_it(
    fresh: CommandLine, guest_image: GuestImage, tmp_path: Path
) -> None:
    before = fresh.residue()
    request = tmp_path / "request.yaml"
    request.write_text(f"name: web1\nimage: tiny\nflavor: small\nnetworks: [{{network: blue}}]\nssh_keys: ['{KEY}']\n")
    done(fresh, "image", "add", "tiny", str(guest_image.disk_qcow2), "--min-disk", "1")
    done(fresh, "flavor", "create", "small", "--vcpus", "1", "--memory", "128", "--disk", "1")
    done(fresh, "network", "create", "blue", "--cidr", "10.94.7.0/24", "--gateway", "10.94.7.1")
    assert "WaitRunning" in done(fresh, "spawn", "-r", str(request), "--plan")
    assert fresh.rows("operations") == []

    submitted = fresh("spawn", "-r", str(request), "--meta", "colour=green", "--no-wait", "-f", "json")
    assert submitted.code == 0, submitted
    assert "runs in the background" in submitted.err
    assert submitted.json["state"] == "ACCEPTED"
    done(fresh, "operation", "watch", submitted.json["id"], "--timeout", "60")
    operation = fresh.operation()
    assert operation.keys() >= OPERATION_FIELDS
    assert (operation["state"], operation["outcome"], operation["debts"]) == ("FINISHED", "SUCCESS", 0)
    for task in operation["tasks"]:
        assert task.keys() >= TASK_FIELDS
        assert (task["state"], task["error"], task["progress"]) == ("SUCCESS", None, 1.0)
        assert task["duration_ms"] >= 0

    uuid = fresh.instance("web1").uuid
    console = Console(fresh.config.instances.path / uuid / "console.log").wait_ready()
    shown = done(fresh, "instance", "console", "web1")
    assert "GUEST-READY" in shown
    assert console.document("CONFIG-DRIVE")["meta"] == {"colour": "green"}
    address = done(fresh, "instance", "show", "web1", "-f", "value", "-c", "addresses").strip()
    assert console.line("ADDRESS").split()[1] in address
    assert done(fresh, "instance", "list", "-f", "value", "-c", "name", "-c", "vm_state").split() == ["web1", "ACTIVE"]
    done(fresh, "audit")

    done(fresh, "delete", "web1")
    done(fresh, "operation", "undo", "--last")
    assert done(fresh, "instance", "list", "-f", "value", "-c", "uuid").split() == [uuid]
    done(fresh, "delete", "web1")
    done(fresh, "trash", "purge", "--older-than", "0")
    done(fresh, "network", "delete", "blue")
    done(fresh, "image", "remove", "tiny")
    left = [line for line in fresh.left_since(before) if not line.startswith("left: row instances")]
    assert left == []
    done(fresh, "audit")


def test_a_wait_that_is_too_short_ends_with_6_and_the_operation_goes_on(command_line: CommandLine) -> None:
    slow = {"fault": "FetchBase:before:sleep=6"}
    answer = command_line(*command_line.spawn_words("web1", "--timeout", "1"), **slow)
    assert answer.code == 6, answer
    assert "is still" in answer.err.splitlines()[-1]
    assert command_line("operation", "watch", "1", "--timeout", "0.2").code == 6
    assert command_line("operation", "watch", "1").code == 0
    assert command_line.instance("web1").vm_state == "ACTIVE"


def test_a_revert_that_fails_ends_with_5_is_shown_by_the_audit_and_can_be_paid(command_line: CommandLine) -> None:
    before = command_line.residue()
    answer = command_line.spawn("web1", fault="WaitRunning:after:raise;DefineDomain.revert:before:raise:*")
    assert answer.code == 5, answer
    assert "injected fault after WaitRunning" in answer.err.splitlines()[-1]
    operation = command_line.operation()
    assert (operation["outcome"], operation["debts"]) == ("REVERTED_WITH_DEBT", 2)  # what stays, and its instance
    audit = command_line("audit", "-f", "json")
    assert audit.code == 5
    # The domain is no finding of its own: the instance that stays, as ERROR, answers for it.
    assert {finding["kind"] for finding in audit.json} == {"debt"}
    assert command_line.instance("web1").vm_state == "ERROR"
    assert command_line("operation", "retry-revert", "1").code == 0
    assert command_line("audit").code == 0
    assert command_line.left_since(before) == []


def test_a_killed_spawn_is_shown_by_the_audit_until_somebody_resumes_it(command_line: CommandLine) -> None:
    assert command_line.spawn("web1", fault="PlugVifs:after:kill").code == -9
    audit = command_line("audit", "-f", "json")
    assert audit.code == 5
    assert any("operation" in finding["kind"] for finding in audit.json), audit.json
    assert command_line("operation", "resume", "1").code == 0
    assert command_line("audit").code == 0


# -- secrets ----------------------------------------------------------------------------------------------------------

SECRETS = {"password": "Canary-Password-7531", "user_data": "canary-user-data-8642", "file": "canary-file-9753"}


def in_any_form(secret: str) -> list[str]:
    """As it is, and as base64 shows it wherever it stands in a longer text."""
    encoded = [base64.b64encode(b"\0" * offset + secret.encode()).decode() for offset in range(3)]
    return [secret, *(text[4 if offset else 0 : -4] for offset, text in enumerate(encoded))]


def files_with(text: str, *roots: Path) -> list[Path]:
    """In another process: whoever opens and closes SQLite's files beside it takes its locks away (fcntl(2))."""
    argv = ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", "-e", text, *map(str, roots)]
    found = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert found.stderr == ""
    return [Path(line) for line in found.stdout.splitlines()]


def test_secrets_are_seen_nowhere_but_on_the_config_drive(command_line: CommandLine, tmp_path: Path) -> None:
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {secret}\n" if name == "user_data" else secret)
    given = (
        *("--admin-password-file", str(tmp_path / "password")),
        *("--user-data", str(tmp_path / "user_data")),
        *("--file", f"/etc/secret={tmp_path / 'file'}"),
    )
    log = command_line.state / "virtflow.log"
    loud = ("--debug", "--log-file", str(log))
    heard = []

    def say(*words: str, code: int = 0, fault: str = "") -> None:
        answer = command_line(*loud, *words, fault=fault)
        assert answer.code == code, answer
        heard.append(f"{answer.out}\n{answer.err}")

    names = ("web1", "web2", "web3")
    # One that is killed while its secrets are stored, one that fails when the drive is written, one that succeeds.
    say(*command_line.spawn_words(names[0], *given), code=-9, fault="BuildConfigDrive:after:kill")
    copy = tmp_path / "killed"
    subprocess.run(["cp", "-a", command_line.state, copy], check=True)
    say("operation", "resume", "--last")
    say(*command_line.spawn_words(names[1], *given), code=4, fault="DefineDomain:before:raise")
    say(*command_line.spawn_words(names[2], *given))
    say(*command_line.spawn_words("web4", *given, "--plan"))
    for number in ("1", "2", "3"):
        say("operation", "show", number, "-f", "json")
    say("instance", "show", "web3", "-f", "json")
    say("config", "show", "--origin")

    for name, secret in SECRETS.items():
        for form in in_any_form(secret):
            assert not [text for text in heard if form in text], f"{name} is told by a command"
            assert {path.name for path in files_with(form, command_line.state, copy)} <= {"disk.config"}
        assert files_with(secret, command_line.state), f"{name} is on the config drive, or this test sees nothing"
    drives = list(command_line.config.instances.path.glob("*/disk.config"))
    assert len(drives) == 2
    assert {drive.stat().st_mode & 0o777 for drive in drives} == {0o600}
    assert command_line.rows("secrets") == []
