"""What a caller may not hand to Taps. Nothing here reaches the kernel."""

from __future__ import annotations

import pytest

from virtflow.errors import NetworkError
from virtflow.network import taps
from virtflow.network.taps import Taps

OWNER = "virtflow:operation:port"


@pytest.fixture(autouse=True)
def no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("the kernel was asked")

    monkeypatch.setattr(taps, "IPRoute", refuse)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "sixteen-letters-", "eth0\n", "eth 0", "-" * 16, "tap\x00", "täp", "x" * 10_000],
)
def test_a_name_that_is_no_interface_name_never_reaches_the_kernel(name: str) -> None:
    for call in (
        lambda: Taps().plug(name, "br0", 1500, OWNER),
        lambda: Taps().plug("vf0", name, 1500, OWNER),
        lambda: Taps().unplug(name, OWNER),
        lambda: Taps().bridge_exists(name),
        lambda: Taps().ensure_bridge(name, OWNER, 1500),
        lambda: Taps().remove_bridge_if_empty(name, OWNER),
    ):
        with pytest.raises(NetworkError) as caught:
            call()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("owner", ["", "somebody", "virtflow:" + "x" * 300, "virtflow:\n"])
def test_an_owner_that_an_audit_could_not_recognise_is_refused(owner: str) -> None:
    with pytest.raises(NetworkError, match="owner"):
        Taps().plug("vf0", "br0", 1500, owner)
