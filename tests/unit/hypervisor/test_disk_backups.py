"""What a copy does when libvirt has lost count of its own jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtflow.errors import HypervisorError
from virtflow.hypervisor.domain_state import DomainState

libvirt = pytest.importorskip("libvirt", reason="needs libvirt-python")


def failing(code: int) -> Exception:
    error = libvirt.libvirtError("double")
    error.err = (code, 0, "said by a double", 0, "", None, None, 0, 0)
    return error  # type: ignore[no-any-return]


class StuckDomain:
    """Of which libvirt 9.0 says that it is being copied, and knows no more."""

    def backupGetXMLDesc(self) -> str:  # noqa: N802 - libvirt's name
        raise failing(libvirt.VIR_ERR_NO_DOMAIN_BACKUP)

    def jobStats(self) -> dict[str, Any]:  # noqa: N802 - libvirt's name
        raise failing(libvirt.VIR_ERR_INTERNAL_ERROR)


class OneDomain:
    """A hypervisor with it, running."""

    def state(self, _uuid: str) -> DomainState:
        return DomainState.RUNNING

    def with_domain(self, _action: str, _uuid: str, function: Callable[[Any], Any]) -> Any:
        return function(StuckDomain())


def test_a_job_that_libvirt_has_lost_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    from virtflow.hypervisor.disk_backups import DiskBackups

    backups: Any = DiskBackups(OneDomain())  # type: ignore[arg-type]
    path = tmp_path / "copy"
    with pytest.raises(HypervisorError, match="libvirt died while it began to copy one before"):
        backups.copy("uuid", "vda", path, lambda: pytest.fail("made"))
    backups.abort("uuid", path)
    assert not path.exists()
