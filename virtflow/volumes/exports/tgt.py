"""Volumes by iSCSI from tgtd: a target per volume, named after it, with one LUN and one CHAP account.

Nothing is kept beside the daemon: after it was restarted, every export is made again by the next ``export`` of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostLacks, VolumeError, VolumeServerFailed
from virtflow.files.lock import hold
from virtflow.volumes.driver import Connection, Reach
from virtflow.volumes.exports.exporter import Backing, check_wanted
from virtflow.volumes.exports.tgt_daemon import Target, TgtDaemon

_LUN = 1
"""LUN 0 is the target's controller."""
_EVERYBODY = "ALL"
_RETRY_SECONDS = 0.02
_TRIES = 100
_IN_PARAMETERS = set(",=\0")
"""What separates the parameters in a request to tgtd."""


@dataclass(frozen=True)
class Portal:
    """Where initiators find the daemon, which has to listen there."""

    address: str
    port: int


class TgtExporter:
    """``prefix`` and the volume's name make the IQN. ``lock`` keeps this host's processes from choosing one number."""

    def __init__(self, daemon: TgtDaemon, portal: Portal, prefix: str, lock: Path) -> None:
        self._daemon = daemon
        self._portal = portal
        self._prefix = prefix
        self._lock = lock

    def export(self, name: str, backing: Backing, reach: Reach) -> Connection:
        _check(name, backing, reach)
        with hold(self._lock):
            check_wanted(name, reach)
            targets = self._daemon.targets()
            target = targets.get(self._iqn(name)) or self._new_target(name, targets.values())
            self._ours(target, "export", name, backing)
            if reach.user not in target.accounts:
                self._let_in(target, reach)
            if _LUN not in target.luns:
                self._new_lun(target, backing)
            if _EVERYBODY not in target.initiators:
                # Last: until here the target can be seen by nobody, whatever it lacks.
                self._daemon.let_in(target.id, _EVERYBODY)
        return Connection(
            "iscsi",
            address=self._portal.address,
            port=self._portal.port,
            target=self._iqn(name),
            lun=_LUN,
            user=reach.user,
        )

    def unexport(self, name: str, backing: Backing) -> None:
        with hold(self._lock):
            target = self._served().get(self._iqn(name))
            if target is None:
                return
            self._ours(target, "unexport", name, backing)
            self._daemon.delete_target(target.id)
            for user in target.accounts:
                self._daemon.delete_account(user)

    def exported(self, directory: Path) -> list[str]:
        targets = self._served().values()
        inside = [each for each in targets if any(directory in Path(path).parents for path in each.luns.values())]
        open_to_somebody = [each for each in inside if each.accounts and each.initiators]
        names = [each.name for each in open_to_somebody if each.name.startswith(self._prefix)]
        return sorted(name.removeprefix(self._prefix) for name in names)

    def check_growth(self, name: str) -> None:
        """It can."""

    def grown(self, name: str, backing: Backing, activity: Activity = IDLE) -> None:
        """tgtd reads a size once only, so the LUN is taken away and given again under the sessions that there are.

        What a guest writes between the two fails: whoever has a running guest pauses it meanwhile.
        """
        with hold(self._lock, activity):
            target = self._served().get(self._iqn(name))
            if target is None:
                return
            self._ours(target, "extend", name, backing)
            if _LUN in target.luns:
                self._without_commands(target, activity)
            self._new_lun(target, backing)

    # -- inside

    def _served(self) -> dict[str, Target]:
        """A daemon that does not run serves nothing, and remembers nothing when it is started."""
        try:
            return self._daemon.targets()
        except HostLacks:
            return {}

    def _iqn(self, name: str) -> str:
        return self._prefix + name

    def _new_target(self, name: str, others: Collection[Target]) -> Target:
        taken = {each.id for each in others}
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        self._daemon.add_target(number, self._iqn(name))
        return Target(number, self._iqn(name))

    def _new_lun(self, target: Target, backing: Backing) -> None:
        self._daemon.add_lun(target.id, _LUN, backing.path)

    def _let_in(self, target: Target, reach: Reach) -> None:
        """One account, and no other: a target that has none asks nobody for a password."""
        if _EVERYBODY in target.initiators:
            self._daemon.shut_out(target.id, _EVERYBODY)
            target.initiators.remove(_EVERYBODY)
        for user in {*target.accounts, reach.user} & set(self._daemon.accounts()):
            self._daemon.delete_account(user)
        self._daemon.add_account(reach.user, reach.password)
        self._daemon.bind_account(target.id, reach.user)

    def _without_commands(self, target: Target, activity: Activity) -> None:
        """Take the LUN away at a moment when it does nothing."""
        for left in reversed(range(_TRIES)):
            try:
                self._daemon.delete_lun(target.id, _LUN)
                return
            except VolumeServerFailed:
                if not left:
                    raise
                activity.sleep(_RETRY_SECONDS)

    def _ours(self, target: Target, action: str, name: str, backing: Backing) -> None:
        """A target of this name that serves anything else is somebody else's."""
        for path in target.luns.values():
            if Path(path) != backing.path:
                raise VolumeError(action=action, volume=name, reason=f"target {target.name} serves {path}")


def _check(name: str, backing: Backing, reach: Reach) -> None:
    if backing.format != "raw":
        reason = f"tgt serves raw volumes, and it is {backing.format}; [volumes] export = nbd serves both"
        raise VolumeError(action="export", volume=name, reason=reason)
    if _IN_PARAMETERS & set(str(backing.path)) - {"="}:
        raise VolumeError(action="export", volume=name, reason=f"tgt cannot serve a path with a comma: {backing.path}")
    if not reach.user or not reach.password or _IN_PARAMETERS & set(reach.user + reach.password):
        raise VolumeError(action="export", volume=name, reason="iSCSI needs a CHAP user and password without , and =")
