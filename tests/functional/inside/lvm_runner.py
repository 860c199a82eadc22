"""A runner of a host whose volumes are logical volumes that it serves by iSCSI. For tests in the appliance."""

from __future__ import annotations

from tests.functional.inside.iscsi_host import CONTROL, GROUP, POOL, PORT, QUICK
from virtflow.engine.runner import Runner
from virtflow.engine.services import Services
from virtflow.hypervisor.embedded_files import EmbeddedFiles
from virtflow.persistence.database import Database
from virtflow.testing.throwaway_host import ThrowawayHost


def _runner(host: ThrowawayHost, backend: str) -> Runner:
    settings = {"backends": backend, "lvm_config": QUICK, "connector": "os-brick"}
    settings |= {"export": "tgt", "iscsi_port": str(PORT), "tgt_control": str(CONTROL), "capacity_gib": "16"}
    config = host.config(**{f"volumes.{name}": value for name, value in settings.items()})
    assert config.libvirt.embed_root is not None
    # It has no guests, and libvirt takes long in there to find that out.
    no_guests = {"hypervisor": EmbeddedFiles(config.libvirt.embed_root)}
    return Runner(config, services=Services(config, Database(config.database.url), no_guests))


def on_thin(host: ThrowawayHost) -> Runner:
    """Thin volumes of the pool."""
    return _runner(host, f"thin:lvm:{GROUP}/{POOL}")


def on_thick(host: ThrowawayHost) -> Runner:
    """Thick ones of the group."""
    return _runner(host, f"thick:lvm:{GROUP}")
