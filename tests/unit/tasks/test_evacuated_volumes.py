"""A host that seemed to be dead knows nothing that opens a volume, and everything again if that is taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.tasks.test_moved_volumes import FILE, ISCSI, LEAVING, Lab
from virtflow.errors import Conflict
from virtflow.tasks.evacuated_volumes import (
    DisconnectLeftVolumes,
    ExportAnew,
    MakeNewCredentials,
    PurgeOldCredentials,
    ReplaceAttachments,
    check_not_lost,
)

OPERATION = "00000000-0000-0000-0000-00000000000e"


def made(lab: Lab) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return MakeNewCredentials().execute(lab.moved, OPERATION, secrets=lab.secrets, **lab.where)


def test_only_the_new_host_gets_in_until_that_is_taken_back() -> None:
    lab = Lab("h1", "h2")
    (taken,), (item,) = made(lab)
    assert taken["attachment_id"] == item["attachment_id"] != "a"
    replace, rows = ReplaceAttachments(), {"volume_attachments": lab.attachments}
    services = {name: lab.services()[name] for name in ("volume_drivers", "secrets")}
    for _twice in range(2):
        replace.execute(lab.moved, [taken], "h2", **rows)
        ExportAnew().execute(item["volume"], item["reach"], **services)
    row = lab.attachments.row
    assert (row.id, row.host, row.device, row.connection) == (taken["attachment_id"], "h2", "vdb", None)
    assert lab.driver.served is not None
    assert (lab.driver.served.user, lab.driver.served.password == "given-before") == (row.id, False)
    for _twice in range(2):
        ExportAnew().revert(item["volume"], item["source_reach"], **services, **LEAVING)
        replace.revert(lab.moved, [taken], "h1", **rows, **LEAVING)
        MakeNewCredentials().revert(lab.moved, OPERATION, "h2", lab.secrets, **LEAVING)
    row = lab.attachments.row
    assert (row.id, row.host, row.connection) == ("a", "h1", ISCSI)
    assert (lab.driver.served.user, lab.driver.served.password) == ("a", "given-before")
    assert len(lab.secrets.kept) == 1


def test_each_destination_has_attachments_of_its_own() -> None:
    (first,), _exports = made(Lab("h1", "h2"))
    (second,), (item,) = made(Lab("h1", "backend"))
    assert first["attachment_id"] != second["attachment_id"]
    assert (item["reach"]["local"], item["source_reach"]["local"]) == (True, False)


def test_the_old_password_goes_when_the_evacuation_is_over() -> None:
    lab = Lab("h1", "h2")
    made(lab)
    PurgeOldCredentials().execute(lab.moved, lab.secrets)
    assert len(lab.secrets.kept) == 1
    PurgeOldCredentials().revert(lab.moved, "h1", lab.secrets, **LEAVING)
    assert lab.password() != "given-before"


@pytest.mark.parametrize("here", [False, True], ids=["elsewhere", "here again"])
def test_a_host_that_is_back_lets_go_of_what_it_has_not_got_since(here: bool) -> None:
    lab = Lab("h1" if here else "h2", "h3")
    gone: list[str] = []
    connector = SimpleNamespace(disconnect=lambda _connection, _activity: gone.append("disconnected"))
    known = SimpleNamespace(forget=lambda _volume: gone.append("forgotten"))
    left = {"volumes": [{"id": "v", "connection": ISCSI}]}
    settings = SimpleNamespace(host="h1")
    DisconnectLeftVolumes().execute(left, True, lab.attachments, connector, known, settings)
    assert gone == ([] if here else ["forgotten", "disconnected"])


def test_a_volume_of_the_dead_host_is_named() -> None:
    lab = Lab("backend", "h2")
    assert lab.moved[0]["connection"] == FILE
    with pytest.raises(Conflict, match="its volume data is on that host, backend"):
        check_not_lost(SimpleNamespace(host="backend", name="web1"), lab.moved)
