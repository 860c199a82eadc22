from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from virtflow.scheduler import Amounts, Decision, HostState, RequestSpec, Scheduler
from virtflow.scheduler import filters as shipped
from virtflow.scheduler.plugins import load_scheduler

ALL = ("status", "availability-zone", "retry", "server-group", "capacity", "capabilities", "image-properties")
WEIGHERS = ("capacity", "allocated-capacity")
WANTED = Amounts(2, 4096, 20)


def host(name: str = "h1", used: tuple[int, int, int] = (0, 0, 0), **fields: Any) -> HostState:
    return HostState(name, Amounts(8, 16384, 100), Amounts(*used), **fields)


def scheduler(**options: Any) -> Scheduler:
    multipliers = options.pop("multipliers", {})
    return load_scheduler(options.pop("filters", ALL), options.pop("weighers", WEIGHERS), multipliers, **options)


def why_not(state: HostState, **wishes: Any) -> str | None:
    """The reason for which the only host is refused, with the filter that gave it."""
    decision = scheduler().select(RequestSpec(WANTED, **wishes), [state])
    (considered,) = decision.considered
    return None if considered.refused_by is None else f"{considered.refused_by}: {considered.reason}"


# -- filters


@pytest.mark.parametrize(
    ("state", "wishes", "reason"),
    [
        (host(), {}, None),
        (host(enabled=False), {}, "status: disabled"),
        (host(enabled=False, disabled_reason="new fans"), {}, "status: disabled: new fans"),
        (host(draining=True), {}, "status: being drained"),
        (host(down="no heartbeat"), {}, "status: down: no heartbeat"),
        (host(zone="north"), {"zone": "north"}, None),
        (host(zone="north"), {"zone": "south"}, "availability-zone: in zone north, not south"),
        (host(), {"tried": {"h1": "DefineDomain: no"}}, "retry: tried before: DefineDomain: no"),
        (host(), {"tried": {"h2": "no"}}, None),
        (host(used=(0, 12289, 0)), {}, "capacity: needs 4096 MiB of memory, 4095 left"),
        (host(used=(6, 12288, 80)), {}, None),
        (
            host(used=(7, 0, 200)),
            {},
            "capacity: needs 2 vcpus, 1 left and needs 20 GiB of disk, 0 left",
        ),
    ],
)
def test_a_host_is_refused_with_a_reason_in_words(state: HostState, wishes: dict[str, Any], reason: str | None) -> None:
    assert why_not(state, **wishes) == reason


GROUP = {"group": "g", "group_hosts": {"h1": "web1"}}


@pytest.mark.parametrize(
    ("name", "policy", "reason"),
    [
        ("h1", "anti-affinity", "server-group: server group g (anti-affinity): instance web1 is on it"),
        ("h2", "anti-affinity", None),
        ("h1", "affinity", None),
        ("h2", "affinity", "server-group: server group g (affinity) is on h1"),
    ],
)
def test_a_server_group_keeps_its_members_together_or_apart(name: str, policy: str, reason: str | None) -> None:
    assert why_not(host(name), group_policy=policy, **GROUP) == reason


def test_the_first_member_of_a_group_may_go_anywhere() -> None:
    assert why_not(host(), group="g", group_policy="affinity") is None


CAPABILITIES = {"arch": "x86_64", "virt_types": ["kvm", "qemu"], "libvirt_version": "9.10.0", "nwfilter": True}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"libvirt_version": ">= 9.9"}, None),
        ({"libvirt_version": ">=10"}, "libvirt_version is 9.10.0, the flavor wants >=10"),
        ({"libvirt_version": "<9.2"}, "libvirt_version is 9.10.0, the flavor wants <9.2"),
        ({"virt_types": "kvm"}, None),
        ({"virt_types": "xen"}, "virt_types is kvm, qemu, the flavor wants xen"),
        ({"virt_types": "!=qemu"}, "virt_types is kvm, qemu, the flavor wants !=qemu"),
        ({"nwfilter": "true"}, None),
        ({"disk": "ssd"}, None),
        ({"disk": "= nvme"}, "disk is ssd, the flavor wants = nvme"),
        ({"rack": "7"}, "has no rack, the flavor wants 7"),
        ({"disk": ">tape"}, "disk is ssd, the flavor wants >tape"),
    ],
)
def test_a_flavor_may_ask_for_capabilities_and_labels(wanted: dict[str, str], reason: str | None) -> None:
    found = why_not(host(capabilities=CAPABILITIES, labels={"disk": "ssd"}), capabilities=wanted)
    assert found == (reason and f"capabilities: {reason}")


MACHINE = {
    "arch": "x86_64",
    "virt_types": ["qemu"],
    "machines": ["pc", "pc-q35-7.2", "q35"],
    "firmware": ["bios"],
}


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"hw_architecture": "x86_64", "hw_machine_type": "pc-q35-7.2", "hw_firmware_type": "bios"}, None),
        ({"architecture": "amd64"}, None),
        ({"hw_architecture": "aarch64"}, "has architecture x86_64, the image wants aarch64"),
        ({"img_hv_type": "kvm"}, "has hypervisor qemu, the image wants kvm"),
        ({"hw_machine_type": "virt"}, "has machine types pc, q35, the image wants virt"),
        ({"hw_firmware_type": "uefi"}, "has firmware bios, the image wants uefi"),
        ({"os_distro": "debian"}, None),
    ],
)
def test_an_image_may_ask_for_hardware(properties: dict[str, str], reason: str | None) -> None:
    found = why_not(host(capabilities=MACHINE), image_properties=properties)
    assert found == (reason and f"image-properties: {reason}")


def test_what_is_not_known_of_a_host_is_no_reason_to_refuse_it_an_image() -> None:
    assert why_not(host(), image_properties={"hw_architecture": "aarch64", "hw_machine_type": "virt"}) is None


def test_filters_are_asked_in_their_order_and_the_first_refusal_counts() -> None:
    state = host(enabled=False, used=(8, 0, 0))
    for order in (("status", "capacity"), ("capacity", "status")):
        (considered,) = scheduler(filters=order).select(RequestSpec(WANTED), [state]).considered
        assert considered.refused_by == order[0]


# -- weighing


FLEET = [host("a", (4, 8192, 50)), host("b"), host("c", (2, 4096, 20))]


def test_the_emptiest_host_is_chosen_and_the_next_ones_are_alternates() -> None:
    decision = scheduler().select(RequestSpec(WANTED), FLEET)
    assert (decision.chosen, decision.alternates) == ("b", ("c", "a"))
    assert [each.host for each in decision.passed] == ["b", "c", "a"]


def test_negative_multipliers_stack_instead_of_spreading() -> None:
    stacking = scheduler(multipliers=dict.fromkeys(WEIGHERS, -1.0))
    assert stacking.select(RequestSpec(WANTED), FLEET).chosen == "a"


def test_of_a_large_and_a_small_host_one_weigher_prefers_what_is_left_and_the_other_the_share() -> None:
    large = HostState("large", Amounts(64, 262144, 1000), Amounts(32, 131072, 500))
    small = HostState("small", Amounts(8, 16384, 100), Amounts(1, 1024, 10))
    for weigher, chosen in (("capacity", "large"), ("allocated-capacity", "small")):
        assert scheduler(weighers=(weigher,)).select(RequestSpec(WANTED), [large, small]).chosen == chosen


def test_a_host_with_fewer_operations_under_way_can_be_preferred() -> None:
    busy = scheduler(weighers=("in-flight",))
    assert busy.needs_in_flight
    assert busy.select(RequestSpec(WANTED), [host("a", in_flight=3), host("b", in_flight=1)]).chosen == "b"
    assert not scheduler().needs_in_flight


def test_the_same_seed_gives_the_same_decision() -> None:
    fleet = [host(f"h{number}") for number in range(20)]
    chosen = {seed: scheduler(subset=5).select(RequestSpec(WANTED), fleet, seed=seed) for seed in "abcdefgh"}
    assert all(scheduler(subset=5).select(RequestSpec(WANTED), fleet, seed=seed) == chosen[seed] for seed in chosen)


def test_equal_hosts_are_drawn_so_that_simultaneous_decisions_spread() -> None:
    fleet = [host(f"h{number}") for number in range(4)]
    drawn = Counter(scheduler().select(RequestSpec(WANTED), fleet, seed=str(seed)).chosen for seed in range(400))
    assert set(drawn) == {"h0", "h1", "h2", "h3"}
    assert min(drawn.values()) > 50


def test_a_subset_is_drawn_from_the_best_only() -> None:
    fleet = [host(f"h{number}", (0, 100 * number, 0)) for number in range(10)]
    drawn = {scheduler(subset=3).select(RequestSpec(WANTED), fleet, seed=str(seed)).chosen for seed in range(100)}
    assert drawn == {"h0", "h1", "h2"}


# -- decisions


def test_a_request_for_one_host_considers_no_other() -> None:
    decision = scheduler().select(RequestSpec(WANTED, host="a"), FLEET)
    assert (decision.chosen, decision.alternates) == ("a", ())
    assert [each.host for each in decision.considered] == ["a"]


def test_the_first_alternate_that_still_fits_is_taken() -> None:
    full = host("a", (8, 0, 0))
    decision = scheduler().first_fitting(RequestSpec(WANTED), [full, host("b"), host("c")])
    assert (decision.chosen, decision.alternates) == ("b", ("c",))
    assert decision.refused == {"a": "needs 2 vcpus, 0 left"}


def test_a_decision_without_a_host_tells_of_a_few_and_counts_the_rest() -> None:
    fleet = [host(f"h{number}", (8, 0, 0)) for number in range(6)] + [host("h6", enabled=False)]
    decision = scheduler().select(RequestSpec(WANTED), fleet)
    assert decision.chosen is None
    words = decision.in_words()
    assert words.startswith("h0: needs 2 vcpus, 0 left; h1: ")
    assert words.endswith("; 2 more by capacity (1), status (1)")
    assert len(decision.refused) == 7


def test_no_host_at_all_is_told_as_that() -> None:
    assert scheduler().select(RequestSpec(WANTED), []).in_words() == "no host is registered"


def test_the_document_has_every_host() -> None:
    document = scheduler().select(RequestSpec(WANTED), [*FLEET, host("d", enabled=False)]).to_dict()
    assert document["chosen"] == "b"
    assert list(document["passed"]) == ["b", "c", "a"]
    assert document["passed"]["b"] == 2.0
    assert document["refused"] == {"d": ["status", "disabled"]}


def test_a_filter_with_nothing_to_check_is_not_asked_of_any_host() -> None:
    assert shipped.RetryFilter().for_request(RequestSpec(WANTED)) is None
    assert shipped.AvailabilityZoneFilter().for_request(RequestSpec(WANTED)) is None


# -- backends of volumes


def backend(name: str, host: str, free: int, *, shared: bool) -> HostState:
    capabilities = {"shared": shared}
    return HostState(f"{host}@{name}", Amounts(disk_gib=free), host=host, capabilities=capabilities)


def chosen_backend(for_host: str | None, *backends: HostState, **options: Any) -> Decision:
    multipliers = {"same-host": 10.0}
    wanted = RequestSpec(Amounts(disk_gib=1), for_host=for_host)
    weighers = ("same-host", *WEIGHERS)
    options = {"filters": ("status", "reach", "capacity"), "weighers": weighers, "multipliers": multipliers, **options}
    return scheduler(**options).select(wanted, backends)


def test_a_backend_that_serves_no_other_host_is_refused_elsewhere() -> None:
    decision = chosen_backend("h1", backend("big", "h2", 1000, shared=False), backend("served", "h3", 100, shared=True))
    assert (decision.chosen, decision.alternates) == ("h3@served", ())
    reason = "out of reach: it is on h2, which serves no other host, and the instance on h1"
    assert decision.to_dict()["refused"] == {"h2@big": ["reach", reason]}
    alone = chosen_backend("h1", backend("big", "h2", 1000, shared=False))
    assert (alone.chosen, alone.in_words()) == (None, f"h2@big: {reason}")


def test_a_backend_on_the_host_of_the_instance_is_preferred_however_large_others_are() -> None:
    small, large = backend("small", "h1", 10, shared=False), backend("large", "h2", 10000, shared=True)
    decision = chosen_backend("h1", small, large)
    assert (decision.chosen, decision.alternates) == ("h1@small", ("h2@large",))
    assert chosen_backend("h1", small, large, multipliers={"same-host": 0.0}).chosen == "h2@large"
    full = HostState("h1@full", Amounts(), host="h1", capabilities={"shared": False})
    assert chosen_backend("h1", full, large).chosen == "h2@large"


def test_nothing_is_preferred_or_out_of_reach_where_no_host_is_given() -> None:
    small, large = backend("small", "h1", 10, shared=False), backend("large", "h2", 10000, shared=False)
    decision = chosen_backend(None, small, large)
    assert (decision.chosen, decision.refused) == ("h2@large", {})
