"""``virtflow demo``: what this is about, in a minute, with a real guest."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from virtflow.cli.command import Command
from virtflow.errors import Conflict, TaskTimeout

_SIZE = ("--vcpus", "1", "--memory", "128", "--disk", "1")
_KILLED = -9
_BOOT_SECONDS = 120.0
_SHOWN = ("CONFIG-DRIVE", "USER-DATA", "NETWORK-DATA", "ADDRESS", "GUEST-READY")
_USER_DATA = "#!/bin/sh\necho this came with the request\n"


class Demo(Command):
    """Show a spawn, a failure that leaves nothing, a crash that is resumed, and an undo.

    Runs real QEMU guests (emulated, no KVM) in a directory of its own, with the commands that you would type, and
    removes everything at the end. Needs root, for taps and the bridge.
    """

    examples = ("virtflow demo", "virtflow demo --keep")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--keep", action="store_true", help="leave the directory, to look into its database")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with _stage(keep=parsed_args.keep) as state:
            _Show(state).run()


class _Show:
    """The acts. Each command is a process of its own, as on a real host: what they share is on disk."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {
            **os.environ,
            "VIRTFLOW_STATE_DIR": str(state),
            "VIRTFLOW_LIBVIRT__VIRT_TYPE": "qemu",
        }

    def run(self) -> None:
        self.prepare()
        self.spawn_and_boot()
        self.fail_and_revert()
        self.crash_and_resume()
        self.undo()
        self.leave_nothing()

    def prepare(self) -> None:
        from virtflow.testing.guest import build_guest

        _title("A host, an image, a network")
        guest = build_guest(say=_say)
        _say(f"a tiny guest: Linux {guest.kernel_version} and busybox, {guest.disk_qcow2.stat().st_size >> 10} KiB")
        self.virtflow("image", "add", "tiny", str(guest.disk_qcow2), quiet=True)
        self.virtflow("network", "create", "demo", "--cidr", "10.77.0.0/24", "--gateway", "10.77.0.1", quiet=True)

    def spawn_and_boot(self) -> None:
        _title("1. A guest is spawned, as a graph of tasks that can each be reverted")
        user_data = self.state / "user-data"
        user_data.write_text(_USER_DATA)
        meta = ("--meta", "colour=green", "--user-data", str(user_data))
        self.spawn("web1", *meta, note="(libvirt asks a new QEMU what it can: the first time takes some seconds)")
        _say("it boots; what it prints about its config drive:")
        for line in self.console("web1"):
            _say(f"  | {line[:150]}")

    def fail_and_revert(self) -> None:
        _title("2. A second one fails at DefineDomain, on purpose, and is taken back step by step")
        self.spawn("web2", fault="DefineDomain:before:raise", expect=4)
        self.audit()

    def crash_and_resume(self) -> None:
        _title("3. A third one is killed in the middle (kill -9), and resumed by another process")
        self.spawn("web3", fault="CreateCowOverlay:after:kill", expect=_KILLED)
        _say("the process is gone; what it had written tells the next one how to go on:")
        self.virtflow("operation", "resume", "--last")
        self.virtflow("instance", "list")

    def undo(self) -> None:
        _title("4. The finished first spawn is undone, and the third with it")
        self.virtflow("operation", "undo", "1")
        self.virtflow("operation", "undo", "3", quiet=True)
        self.virtflow("operation", "list", "-c", "number", "-c", "kind", "-c", "target", "-c", "outcome")

    def leave_nothing(self) -> None:
        _title("Nothing is left")
        self.audit()
        left = sorted(path.name for path in (self.state / "instances").iterdir() if not path.name.startswith("_"))
        _say(f"instances on disk: {', '.join(name for name in left if name != 'locks') or 'none'}")

    def spawn(self, name: str, *more: str, fault: str | None = None, expect: int = 0, note: str = "") -> None:
        words = ("spawn", name, "--image", "tiny", *_SIZE, "--network", "demo", *more)
        self.virtflow(*words, fault=fault, expect=expect, note=note)

    def audit(self) -> None:
        self.virtflow("audit")
        _say("the audit finds nothing that nobody answers for")

    def virtflow(
        self, *words: str, fault: str | None = None, expect: int = 0, quiet: bool = False, note: str = ""
    ) -> None:
        """Run a command as a person would, and stop the demo when it ends otherwise than it should."""
        prefix = f"VIRTFLOW_FAULT={fault} " if fault else ""
        _say(f"$ {prefix}virtflow {shlex.join(words)}  {note}".rstrip())
        code = subprocess.run(
            [sys.executable, "-m", "virtflow", *words],
            env=self.environment | ({"VIRTFLOW_FAULT": fault} if fault else {}),
            stdout=subprocess.DEVNULL if quiet else None,
            check=False,
        ).returncode
        if code != expect:
            reason = f"`virtflow {words[0]}` ended with {code}, not {expect}"
            raise Conflict(action="go on with", kind="demo", name=str(self.state), reason=reason)
        if expect:
            _say(f"  exit code {code}")

    def console(self, name: str) -> list[str]:
        """What the guest has printed about what it was given, when it is ready."""
        until = time.monotonic() + _BOOT_SECONDS
        argv = [sys.executable, "-m", "virtflow", "instance", "console", name]
        while time.monotonic() < until:
            printed = subprocess.run(argv, env=self.environment, capture_output=True, check=False).stdout
            lines = printed.decode("utf-8", "replace").splitlines()
            if any(line.startswith("GUEST-READY") for line in lines):
                return [line for line in lines if line.startswith(_SHOWN) or "came with the request" in line]
            time.sleep(0.5)
        raise TaskTimeout(step=f"booting {name}")


@contextmanager
def _stage(*, keep: bool) -> Iterator[Path]:
    """The demo's directory: a short path, since QEMU's sockets below it must fit into 108 bytes."""
    state = Path(tempfile.mkdtemp(prefix="virtflow-demo.", dir="/var/tmp"))
    try:
        yield state
    finally:
        _clear(state)
        if keep:
            _say(f"kept: {state}")
        else:
            shutil.rmtree(state)


def _clear(state: Path) -> None:
    """Undo whatever a demo that broke off has left running, so that nothing stays behind."""
    environment = {**os.environ, "VIRTFLOW_STATE_DIR": str(state), "VIRTFLOW_LIBVIRT__VIRT_TYPE": "qemu"}
    if not (state / "virtflow.db").exists():
        return
    for number in _unfinished(environment):
        for verb in ("cancel", "undo"):
            argv = [sys.executable, "-m", "virtflow", "operation", verb, number]
            subprocess.run(argv, env=environment, capture_output=True, check=False)


def _unfinished(environment: Mapping[str, str]) -> list[str]:
    argv = [sys.executable, "-m", "virtflow", "operation", "list", "-f", "value", "-c", "number", "-c", "outcome"]
    listed = subprocess.run(argv, env=environment, capture_output=True, check=False, text=True).stdout
    rows = [line.split() for line in listed.splitlines() if line.strip()]
    return [row[0] for row in rows if len(row) == 1 or row[1] in ("SUCCESS", "None")]


def _title(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
