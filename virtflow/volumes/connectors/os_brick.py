"""The connector ``os-brick``: the kernel's iSCSI initiator, through OpenStack's library. A volume becomes a device.

As root, what needs privileges runs in this process: no sudo, no helper daemon. Others configure oslo.privsep.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostLacks, VolumeError
from virtflow.volumes.connectors.connector import BLOCK, Attached
from virtflow.volumes.connectors.qemu import QemuConnector
from virtflow.volumes.driver import Connection

_ISCSI = "iscsi"
_setting_up = threading.Lock()


class OsBrickConnector:
    """``locks`` is a directory for its locks, which all processes of this host share. What is no iSCSI (files and
    devices of this host, NBD) is left to ``qemu``."""

    def __init__(self, locks: Path, qemu: QemuConnector) -> None:
        self._locks = locks
        self._qemu = qemu
        self._brick: Any = None

    def connect(self, connection: Connection, password: str = "", activity: Activity = IDLE) -> Attached:
        if connection.kind != _ISCSI:
            return self._qemu.connect(connection, password, activity)
        properties = _properties(connection) | {"auth_password": password}
        with _errors("connect", connection, password):
            brick = self._connector()
            device = brick.connect_volume(properties)
            # Names like /dev/sda go to another disk after the next connection; this one says which LUN it is.
            stable = [path for path in brick.get_volume_paths(properties) if os.path.exists(path)]
        return Attached(BLOCK, stable[0] if stable else device["path"])

    def disconnect(self, connection: Connection, activity: Activity = IDLE) -> None:  # noqa: ARG002
        if connection.kind == _ISCSI:
            with _errors("disconnect", connection):
                self._connector().disconnect_volume(_properties(connection), None)

    def extend(self, connection: Connection, activity: Activity = IDLE) -> None:  # noqa: ARG002
        if connection.kind == _ISCSI:
            with _errors("extend", connection):
                self._connector().extend_volume(_properties(connection))

    def _connector(self) -> Any:
        with _setting_up:
            if self._brick is None:
                self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._brick = _load(self._locks)
        return self._brick


def _load(locks: Path) -> Any:
    try:
        from virtflow.eventletless import without_eventlet

        with without_eventlet():
            import os_brick
            from os_brick.initiator.connectors.iscsi import ISCSIConnector
            from os_brick.privileged import default as privileges
    except ImportError as error:
        raise HostLacks(
            action="connect volumes with os-brick",
            missing="the Python package os-brick",
            remedy="run: pip install virtflow[volumes]",
        ) from error
    from oslo_concurrency import lockutils
    from oslo_config import cfg

    lockutils.set_defaults(str(locks))
    os_brick.setup(cfg.CONF)
    if os.geteuid() == 0:
        privileges.set_client_mode(False)
    return ISCSIConnector(root_helper="")


def _properties(connection: Connection) -> dict[str, Any]:
    return {
        "target_discovered": False,
        "target_portal": f"{connection.address}:{connection.port}",
        "target_iqn": connection.target,
        "target_lun": connection.lun,
        "auth_method": "CHAP",
        "auth_username": connection.user,
        "access_mode": "rw",
    }


@contextmanager
def _errors(action: str, connection: Connection, password: str = "") -> Iterator[None]:
    from oslo_concurrency.processutils import ProcessExecutionError

    try:
        yield
    except VolumeError:
        raise
    except (ProcessExecutionError, OSError) as error:
        raise _refused(action, connection, error, password) from error
    except Exception as error:
        if type(error).__module__ != "os_brick.exception":
            raise
        raise _refused(action, connection, error, password) from error


def _refused(action: str, connection: Connection, error: Exception, password: str) -> VolumeError:
    reason = " ".join(str(error).split())[:600]
    if password:
        reason = reason.replace(password, "***")
    return VolumeError(action=action, volume=connection.target, reason=reason)
