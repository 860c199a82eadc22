from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.engine.restoring_exports import restore_exports
from virtflow.errors import VolumeError
from virtflow.persistence.secrets import SecretStore
from virtflow.persistence.volumes import Attachment
from virtflow.volumes.driver import Connection, Reach

ISCSI = Connection("iscsi", address="192.0.2.1", port=3260, target="iqn.2026-01.test:volume-v", lun=1, user="a")


class Driver:
    """Serves nothing at first, and asks as an exporter does."""

    def __init__(self) -> None:
        self.serving: dict[str, Reach] = {}
        self.before_asking: Callable[[], None] = lambda: None

    def exported(self) -> list[str]:
        return sorted(self.serving)

    def export(self, name: str, reach: Reach) -> Connection:
        self.before_asking()
        if not reach.wanted():
            raise VolumeError(action="export", volume=name, reason="nobody wants it any more")
        self.serving[name] = reach
        return ISCSI


class Host:
    """One volume of this host, which an instance of another has."""

    def __init__(self) -> None:
        self.volume = SimpleNamespace(
            id="v", name="data", host="here", backend="here@local", held_by=None, state="IN_USE"
        )
        self.attachments = [
            Attachment(id="a", volume="v", instance="i", host="there", operation="o", connection=ISCSI.to_dict())
        ]
        self.driver = Driver()

    def services(self) -> Mapping[str, Any]:
        attachments = SimpleNamespace(list=lambda: list(self.attachments), of_volume=lambda _id: self._first())
        return {
            "volumes": SimpleNamespace(get=lambda _id: SimpleNamespace(**vars(self.volume))),
            "volume_attachments": attachments,
            "volume_drivers": SimpleNamespace(get=lambda _backend: self.driver),
            "secrets": SimpleNamespace(reference=SecretStore.reference, get=self._secret),
        }

    def _first(self) -> Attachment | None:
        return self.attachments[0] if self.attachments else None

    def _secret(self, reference: str) -> bytes:
        assert reference == SecretStore.reference("a", "chap")
        return b"its-password"


@pytest.fixture
def host() -> Host:
    return Host()


def test_what_nobody_serves_any_more_is_served_again_to_the_same_user(host: Host) -> None:
    assert restore_exports(host.services(), "here") == ["volume-v"]
    served = host.driver.serving["volume-v"]
    assert (served.local, served.user, served.password) == (False, "a", "its-password")
    assert restore_exports(host.services(), "here") == []


def test_a_volume_of_another_host_is_that_hosts_business(host: Host) -> None:
    assert restore_exports(host.services(), "there") == []


def test_a_volume_that_is_reached_by_path_needs_no_server(host: Host) -> None:
    local = Connection("file", path="/volumes/volume-v").to_dict()
    host.attachments = [Attachment(id="a", volume="v", instance="i", host="here", operation="o", connection=local)]
    assert restore_exports(host.services(), "here") == []


def test_what_an_operation_is_at_work_on_is_left_to_it(host: Host) -> None:
    host.volume.held_by, host.volume.state = "o", "DELETING"
    assert restore_exports(host.services(), "here") == []
    assert host.driver.serving == {}


@pytest.mark.parametrize("state", ["ATTACHING", "DETACHING", "EXTENDING", "MOVING", "COPYING"])
def test_an_operation_whose_guest_would_wait_for_the_server_does_not_wait_for_ever(host: Host, state: str) -> None:
    host.volume.held_by, host.volume.state = "o", state
    assert restore_exports(host.services(), "here") == ["volume-v"]


@pytest.mark.parametrize("change", ["held", "forgotten", "detached", "attached to another"])
def test_an_export_that_is_taken_away_in_the_same_moment_does_not_come_back(host: Host, change: str) -> None:
    def meanwhile() -> None:
        if change == "held":
            host.volume.held_by, host.volume.state = "o", "DELETING"
            return
        host.attachments = []
        if change == "forgotten":
            host.attachments = [Attachment(id="a", volume="v", instance="i", host="there", operation="o")]
        if change == "attached to another":
            host.attachments = [Attachment(id="b", volume="v", instance="j", host="there", operation="p")]

    host.driver.before_asking = meanwhile
    assert restore_exports(host.services(), "here") == []
    assert host.driver.serving == {}


def test_a_server_that_is_still_down_is_logged_and_tried_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    def down() -> None:
        raise VolumeError(action="export", volume="volume-v", reason="no tgtd")

    host.driver.before_asking = down
    assert restore_exports(host.services(), "here") == []
    assert "no tgtd" in caplog.text
    host.driver.before_asking = lambda: None
    assert restore_exports(host.services(), "here") == ["volume-v"]
