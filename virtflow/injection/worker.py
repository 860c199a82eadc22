"""The process that injects: ``python -m virtflow.injection.worker DIRECTORY``, the plan on its standard input.

It is the first process of its own process and mount namespaces, so that whatever it starts and mounts ends with it. It
prints the result, or ``{"error": reason}``, as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtflow.errors import CommandFailed
from virtflow.injection.debugfs import DebugfsFilesystem
from virtflow.injection.filesystem import GuestFileError, GuestFilesystem, Unsupported
from virtflow.injection.guestfs import GuestfsFilesystem
from virtflow.injection.items import INJECTORS, reason
from virtflow.injection.mounted import MountedFilesystem
from virtflow.injection.plan import InjectionPlan, InjectionResult
from virtflow.processes import run

_FAILURES = (GuestFileError, OSError, CommandFailed)


class MandatoryFailed(Exception):
    """Something that must not fail did; the text says what and why."""


def inject(plan: InjectionPlan, directory: Path) -> InjectionResult:
    """Inject with the first method that can. Raises MandatoryFailed; the disk is then worth nothing."""
    refusals = []
    for method in plan.methods:
        try:
            with _opened(plan, method, directory) as guest:
                injected, failed = _write(plan, guest)
            return InjectionResult(injected, failed, method)
        except Unsupported as error:
            refusals.append(f"{method}: {error}")
        why = "; ".join(refusals)
    if plan.must():
        raise MandatoryFailed(why)
    return InjectionResult(failed=dict.fromkeys(plan.items.wanted(), why))


def _write(plan: InjectionPlan, guest: GuestFilesystem) -> tuple[tuple[str, ...], dict[str, str]]:
    injected, failed = [], {}
    for name in plan.items.wanted():
        try:
            INJECTORS[name](guest, plan.items)
            injected.append(name)
        except _FAILURES as error:
            if name in plan.mandatory:
                raise MandatoryFailed(f"{name}: {reason(error)}") from error
            failed[name] = reason(error)
    return tuple(injected), failed


@contextmanager
def _opened(plan: InjectionPlan, method: str, directory: Path) -> Iterator[GuestFilesystem]:
    # A directory for each: what a method that gave up has left behind must not be in the way of the next.
    private = directory / method
    private.mkdir(mode=0o700)
    guest = _filesystem(plan, method, private)
    try:
        _set_up(guest)
        yield guest
    except BaseException:
        with contextlib.suppress(*_FAILURES):
            guest.teardown()
        raise
    guest.teardown()


def _set_up(guest: GuestFilesystem) -> None:
    try:
        guest.setup()
    except _FAILURES as error:
        # Nothing was written yet: another method may have better luck.
        raise Unsupported(reason(error)) from error


def _filesystem(plan: InjectionPlan, method: str, directory: Path) -> GuestFilesystem:
    where = (plan.disk, plan.disk_format, plan.partition)
    if method == "fuse":
        return MountedFilesystem(*where, directory)
    if method == "debugfs":
        return DebugfsFilesystem(*where, directory)
    return GuestfsFilesystem(*where, backend=plan.guestfs_backend, emulated=plan.guestfs_emulated)


def main(directory: str) -> None:
    os.umask(0o022)
    try:
        plan = InjectionPlan.from_json(sys.stdin.buffer.read())
        # In memory, and gone with this process: neither a mount point nor what is written lies on this host's disks.
        run(["mount", "-n", "-t", "tmpfs", "-o", "mode=0700,nodev,nosuid,noexec", "tmpfs", directory])
        answer = inject(plan, Path(directory)).to_dict()
    except (MandatoryFailed, *_FAILURES) as error:
        answer = {"error": reason(error)}
    except ValueError:
        # Who was to be told has died, and the plan is cut off.
        answer = {"error": "the plan cannot be read"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
