"""Volumes of an instance that moves: who needs a server, who is let in, and what is as before if that is taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.errors import Conflict, InvalidRequest
from virtflow.persistence.secrets import SecretStore
from virtflow.persistence.volumes import Attachment
from virtflow.tasks.base import Debt
from virtflow.tasks.moved_volumes import (
    CollectConnections,
    ConnectMovedVolumes,
    DisconnectMovedVolumes,
    ExportToDestination,
    MakeMovedCredentials,
    PurgeLeftCredentials,
    SwitchAttachments,
    moved_volumes,
    reachable_host,
    with_volumes,
)
from virtflow.volumes.connectors.connector import NETWORK, Attached
from virtflow.volumes.driver import Connection, Reach

FILE = Connection("file", path="/volumes/volume-v").to_dict()
ISCSI = Connection("iscsi", address="192.0.2.1", port=3260, target="iqn:volume-v", lun=1, user="a").to_dict()
LEAVING = {"result": None, "flow_failures": {}}


class Secrets:
    """Keeps what was put first."""

    reference = staticmethod(SecretStore.reference)

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, bytes]] = {}

    def put_once(self, owner: str, name: str, value: bytes) -> str:
        self.kept.setdefault(self.reference(owner, name), (owner, value))
        return self.reference(owner, name)

    def get(self, reference: str) -> bytes:
        return self.kept[reference][1]

    def purge(self, owner: str) -> None:
        self.kept = {reference: kept for reference, kept in self.kept.items() if kept[0] != owner}


class Driver:
    """Serves a volume to one user at a time."""

    def __init__(self) -> None:
        self.served: Reach | None = None

    def export(self, _name: str, reach: Reach) -> Connection:
        if reach.local:
            return Connection.from_dict(FILE)
        self.served = reach
        return Connection.from_dict(ISCSI)

    def unexport(self, _name: str) -> None:
        self.served = None


class Attachments:
    """One row."""

    def __init__(self, host: str, connection: dict[str, Any]) -> None:
        self.row = Attachment(
            id="a", volume="v", instance="i", host=host, device="vdb", operation="o", connection=connection
        )

    def set(self, _identity: str, **changes: Any) -> None:
        self.row = Attachment(**{**self.row.__dict__, **changes})

    def list(self, **_given: Any) -> list[Attachment]:
        return [self.row]

    def of_volume(self, _volume: str) -> Attachment:
        return self.row


class Lab:
    """One volume of host ``backend``, which an instance has that goes from ``source`` to ``destination``."""

    def __init__(self, source: str, destination: str) -> None:
        self.where = {"source_host": source, "destination": destination}
        connection = FILE if source == "backend" else ISCSI
        self.secrets, self.driver, self.attachments = Secrets(), Driver(), Attachments(source, connection)
        volume = {"id": "v", "name": "data", "backend": "local", "host": "backend", "size_gib": 1, "encryption": None}
        self.moved = [{**volume, "boot": False, "attachment_id": "a", "device": "vdb", "connection": connection}]
        if source != "backend":
            self.driver.served = Reach(False, "a", self.password())

    def password(self) -> str:
        return self.secrets.get(self.secrets.put_once("a", "chap", b"given-before")).decode()

    def exports(self) -> list[dict[str, Any]]:
        return MakeMovedCredentials(left=True).execute(moved_volumes=self.moved, secrets=self.secrets, **self.where)

    def services(self) -> dict[str, Any]:
        drivers = SimpleNamespace(get=lambda _backend: self.driver)
        return {"volume_drivers": drivers, "secrets": self.secrets, "volume_attachments": self.attachments}

    def export(self) -> list[dict[str, Any]]:
        """The connections of the destination."""
        exports, task = self.exports(), ExportToDestination()
        made = [
            {"connection": task.execute(each["volume"], "a", each["reach"], each["left"], **self.services())}
            for each in exports
        ]
        return CollectConnections().execute(self.moved, exports, made)

    def take_back(self, exports: list[dict[str, Any]]) -> None:
        for each in exports:
            kept = {name: each[name] for name in ("volume", "attachment_id", "source_reach")}
            ExportToDestination().revert(**kept, **self.services(), **LEAVING)
        MakeMovedCredentials(left=True).revert(moved_volumes=self.moved, secrets=self.secrets, **self.where, **LEAVING)


def test_a_volume_of_a_third_host_is_reached_as_before_and_nothing_is_exported() -> None:
    lab = Lab("h1", "h2")
    before = lab.driver.served
    assert lab.exports() == []
    assert lab.export() == [{"connection": ISCSI}]
    lab.take_back([])
    assert (lab.driver.served, lab.password()) == (before, "given-before")


def test_an_instance_that_reaches_a_volume_of_its_own_host_by_nbd_does_so_again_when_its_leaving_is_taken_back() -> (
    None
):
    lab = Lab("backend", "h2")
    before = lab.driver.served = Reach(local=False, user="a", password=lab.password())
    lab.moved[0]["connection"] = {**ISCSI, "kind": "nbd"}
    assert lab.export() == [{"connection": ISCSI}]
    lab.take_back(lab.exports())
    assert (lab.driver.served, lab.attachments.row.connection) == (before, ISCSI)


def test_an_instance_that_leaves_the_backends_host_gets_a_server_and_a_password_until_that_is_taken_back() -> None:
    lab = Lab("backend", "h2")
    assert lab.export() == [{"connection": ISCSI}]
    exports = lab.exports()
    assert lab.driver.served is not None
    assert lab.driver.served.password.encode() == lab.secrets.get(exports[0]["reach"]["password"])
    assert lab.attachments.row.connection == FILE, "it is there only when its guest is"
    for _twice in range(2):
        lab.take_back(exports)
        assert (lab.driver.served, lab.secrets.kept) == (None, {})
    assert lab.attachments.row.connection == FILE


def test_an_instance_that_comes_to_the_backends_host_is_served_no_more_until_that_is_taken_back() -> None:
    lab = Lab("h1", "backend")
    assert lab.export() == [{"connection": FILE}]
    assert lab.driver.served is None, "who might still write from where it was is locked out"
    assert lab.attachments.row.connection is None, "and stays so when the server is restarted"
    exports = lab.exports()
    for _twice in range(2):
        lab.take_back(exports)
        assert lab.driver.served == Reach(False, "a", "given-before", lab.driver.served.wanted)  # type: ignore[union-attr]
    assert lab.attachments.row.connection == ISCSI
    task, places = PurgeLeftCredentials(), {"moved_volumes": lab.moved, "secrets": lab.secrets, **lab.where}
    task.execute(**places)
    assert lab.secrets.kept == {}
    task.revert(**places, **LEAVING)
    assert lab.password() != "given-before"


@pytest.mark.parametrize(("source", "destination"), [("backend", "h2"), ("h1", "h2")])
def test_a_password_that_is_needed_is_not_purged_when_the_move_is_confirmed(source: str, destination: str) -> None:
    lab = Lab(source, destination)
    lab.exports()
    kept = dict(lab.secrets.kept)
    PurgeLeftCredentials().execute(moved_volumes=lab.moved, secrets=lab.secrets, **lab.where)
    assert lab.secrets.kept == kept != {}


def test_attachments_say_where_the_instance_is_and_again_where_it_was() -> None:
    lab = Lab("backend", "h2")
    SwitchAttachments().execute(lab.moved, [{"connection": ISCSI}], "h2", lab.attachments)
    assert (lab.attachments.row.host, lab.attachments.row.connection) == ("h2", ISCSI)
    SwitchAttachments().revert(lab.moved, "backend", lab.attachments, **LEAVING)
    assert (lab.attachments.row.host, lab.attachments.row.connection) == ("backend", FILE)


class Connector:
    def __init__(self) -> None:
        self.connected: list[Connection] = []

    def connect(self, connection: Connection, _password: str, _activity: Any) -> Attached:
        self.connected.append(connection)
        return Attached(NETWORK)

    def disconnect(self, connection: Connection, _activity: Any) -> None:
        self.connected.remove(connection)


class LibvirtSecrets:
    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def keep(self, volume: str, value: bytes) -> None:
        self.known[volume] = value

    def forget(self, volume: str) -> None:
        self.known.pop(volume, None)


def test_no_volume_is_taken_from_a_guest_that_may_run() -> None:
    lab, connector, known = Lab("h1", "h2"), Connector(), LibvirtSecrets()
    reaching = {"volume_connector": connector, "libvirt_secrets": known}
    connections = [{"connection": ISCSI}]
    made = ConnectMovedVolumes().execute(lab.moved, connections, "i", secrets=lab.secrets, **reaching)
    assert made == [{"source": ISCSI, "serial": "v", "boot": False, "device": "vdb"}]
    assert known.known == {"v": b"given-before"}
    state = SimpleNamespace(is_active=True)
    hypervisor = SimpleNamespace(state=lambda _uuid: state)
    task = ConnectMovedVolumes()
    assert isinstance(task.revert(lab.moved, connections, "i", hypervisor, **reaching, **LEAVING), Debt)
    assert len(connector.connected) == 1
    state.is_active = False
    assert task.revert(lab.moved, connections, "i", hypervisor, **reaching, **LEAVING) is None
    assert (connector.connected, known.known) == ([], {})


def test_a_volume_that_is_reached_in_another_way_by_now_is_not_given_to_the_old_domain() -> None:
    lab, connector, known = Lab("h1", "h2"), Connector(), LibvirtSecrets()
    connector.connected.append(Connection.from_dict(ISCSI))
    reaching = {"volume_connector": connector, "libvirt_secrets": known}
    task = DisconnectMovedVolumes()
    task.execute(lab.moved, True, **reaching)
    arguments = {"volume_attachments": lab.attachments, "secrets": lab.secrets, **reaching, **LEAVING}
    lab.attachments.set("a", connection={**ISCSI, "port": 1})
    with pytest.raises(Conflict, match="not reached as before"):
        task.revert(lab.moved, **arguments)
    assert connector.connected == []
    lab.attachments.set("a", connection=ISCSI)
    task.revert(lab.moved, **arguments)
    assert known.known == {"v": b"given-before"}


def backends(*, shared: bool) -> Any:
    return SimpleNamespace(is_shared=lambda _name: shared)


INSTANCE: Any = SimpleNamespace(uuid="i", name="web1")


def test_a_volume_that_no_other_host_reaches_keeps_the_instance_where_it_is() -> None:
    moved = Lab("backend", "h2").moved
    assert reachable_host(INSTANCE, moved, None, {}, "resize", backends(shared=False)) == "backend"
    assert reachable_host(INSTANCE, moved, "backend", {}, "resize", backends(shared=False)) == "backend"
    assert reachable_host(INSTANCE, moved, "h2", {}, "resize", backends(shared=True)) == "h2"
    assert reachable_host(INSTANCE, moved, None, {}, "resize", backends(shared=True)) is None
    with pytest.raises(InvalidRequest, match="volume data can only be reached on backend") as refused:
        reachable_host(INSTANCE, moved, "h2", {}, "resize", backends(shared=False))
    assert refused.value.fields["field"] == "host"
    with pytest.raises(Conflict, match="its volume data can only be reached on backend"):
        reachable_host(INSTANCE, moved, None, {"backend": "it is there"}, "migrate", backends(shared=False))


def test_what_the_instance_has_now_counts_and_not_what_it_was_made_with() -> None:
    lab = Lab("h1", "h2")
    volume = {name: lab.moved[0][name] for name in ("id", "name", "backend", "host", "size_gib", "encryption")}
    volumes = SimpleNamespace(get=lambda _id: SimpleNamespace(**volume))
    gone = {"id": "gone", "boot": False}
    assert moved_volumes(INSTANCE, {"volumes": [gone]}, "resize", volumes, lab.attachments) == lab.moved
    assert with_volumes({"volumes": [gone]}, lab.moved)["volumes"] == [{**volume, "boot": False, "device": "vdb"}]
    assert moved_volumes(INSTANCE, {}, "resize", volumes, lab.attachments) == lab.moved
    (root,) = moved_volumes(INSTANCE, {"volumes": [{"id": "v", "boot": True}]}, "resize", volumes, lab.attachments)
    assert root["boot"]
    with pytest.raises(Conflict, match="boots from is not attached"):
        moved_volumes(INSTANCE, {"volumes": [{**gone, "boot": True}]}, "resize", volumes, lab.attachments)
