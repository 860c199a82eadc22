"""Which graph an operation or segment of a given name and version has.

Flows are found here and nowhere else: no name that was read from a database or a board is ever imported.
"""

from __future__ import annotations

from virtflow.errors import UnknownFlow
from virtflow.flows.kind import FlowKind


class Registry:
    """All known flows. The highest version of a name is the one that new operations get."""

    def __init__(self, kinds: tuple[FlowKind, ...] = ()) -> None:
        self._kinds = {(kind.name, kind.version): kind for kind in kinds}

    def add(self, kind: FlowKind) -> None:
        """Register a flow; the same name and version twice is a mistake in the program."""
        if (kind.name, kind.version) in self._kinds:
            raise ValueError(f"flow {kind.name} version {kind.version} is registered already")
        self._kinds[kind.name, kind.version] = kind

    def newest(self, name: str) -> FlowKind:
        versions = [version for known, version in self._kinds if known == name]
        if not versions:
            raise UnknownFlow(kind=name, version="any")
        return self._kinds[name, max(versions)]

    def get(self, name: str, version: int) -> FlowKind:
        try:
            return self._kinds[name, version]
        except KeyError:
            raise UnknownFlow(kind=name, version=version) from None

    def names(self) -> list[str]:
        return sorted({name for name, _version in self._kinds})


def default_registry() -> Registry:
    """The flows that virtflow ships."""
    from virtflow.flows.delete import host as delete_host
    from virtflow.flows.delete import operation as delete
    from virtflow.flows.evacuate import clean, clean_host, locate, rebuild, start
    from virtflow.flows.evacuate import operation as evacuate
    from virtflow.flows.image import create as image_create
    from virtflow.flows.image import create_host as image_create_host
    from virtflow.flows.live_migrate.kinds import LIVE_MIGRATE_KINDS
    from virtflow.flows.purge import host as purge_host
    from virtflow.flows.purge import operation as purge
    from virtflow.flows.resize import confirm, destination, inspect, prepare, retire, source
    from virtflow.flows.resize import operation as resize
    from virtflow.flows.spawn import host as spawn_host
    from virtflow.flows.spawn import operation as spawn
    from virtflow.flows.volume.kinds import VOLUME_KINDS

    operations = (spawn.KIND, delete.KIND, delete.FIRST, purge.KIND, resize.RESIZE, resize.MIGRATE, confirm.KIND)
    segments = (spawn_host.KIND, delete_host.KIND, purge_host.KIND)
    of_resize = (inspect.KIND, prepare.KIND, source.KIND, destination.KIND, retire.KIND)
    of_images = (image_create.KIND, image_create_host.KIND)
    of_evacuate = (evacuate.KIND, locate.KIND, rebuild.KIND, start.KIND, clean.KIND, clean_host.KIND)
    of_moves = (*of_resize, *of_evacuate, *LIVE_MIGRATE_KINDS)
    return Registry((*operations, *segments, *of_moves, *of_images, *VOLUME_KINDS))
