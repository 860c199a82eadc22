"""The flows of live migration: two operations and their segments."""

from __future__ import annotations

from virtflow.flows.live_migrate import clean, find, inspect, land, leave, leftover, operation, prepare, send, unexport

LIVE_MIGRATE_KINDS = (
    operation.KIND,
    leftover.KIND,
    inspect.KIND,
    prepare.KIND,
    send.KIND,
    land.KIND,
    leave.KIND,
    find.KIND,
    unexport.KIND,
    clean.KIND,
)
