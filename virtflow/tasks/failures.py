"""What a revert is told of the failures that led to it, in words that anybody may read."""

from __future__ import annotations

from collections.abc import Mapping

from taskflow.types.failure import Failure

from virtflow.notifications.payloads import Fault
from virtflow.redaction import scrub


def fault_of(failures: Mapping[str, Failure] | None) -> Fault | None:
    """The first failure; None when there was none, as in an undo.

    Of exceptions that are not virtflow's own only the type is told: their text was not written for users
    (OSSA-2019-003, CVE-2019-14433). The operation has it.
    """
    for failure in (failures or {}).values():
        ours = failure.check("virtflow.errors.VirtflowError") is not None
        name = next(iter(failure)).rpartition(".")[2]
        return Fault(name, scrub(failure.exception_str) if ours else "an internal error, told by the operation")
    return None
