"""Every flow of volumes."""

from __future__ import annotations

from virtflow.flows.volume import (
    attach,
    attach_host,
    create,
    create_host,
    delete,
    delete_host,
    detach,
    detach_host,
    export_host,
    extend,
    extend_host,
    purge,
    purge_host,
    snapshot_create,
    snapshot_delete,
    snapshot_host,
)

_OPERATIONS = (create, delete, purge, attach, detach, extend, snapshot_create, snapshot_delete)
_SEGMENTS = (create_host, delete_host, purge_host, attach_host, detach_host, snapshot_host)
_REACHING = (export_host.EXPORT, export_host.UNEXPORT, export_host.EXPORT_MOVED, export_host.EXPORT_ANEW)
_EXTENDING = (extend_host.BACKEND, extend_host.PAUSE, extend_host.GUEST)
_HALTING = (snapshot_host.PAUSE, snapshot_host.RUN)

VOLUME_KINDS = (*(module.KIND for module in (*_OPERATIONS, *_SEGMENTS)), *_REACHING, *_EXTENDING, *_HALTING)
