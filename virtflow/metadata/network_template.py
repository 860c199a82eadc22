"""The guest's network as Debian's ``/etc/network/interfaces``, from a template (interfaces(5)).

A template is text in the syntax of ``string.Template``. What stands above a line ``%%`` occurs once; what stands below
it once for every address of every port. A line is left out when one of its variables has no value, so that an address
without a gateway simply has no gateway line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from string import Template

from virtflow.metadata.network_data import Vif, VifAddress

VARIABLES = ("name", "auto", "family", "address", "netmask", "prefix", "broadcast", "gateway", "dns", "mac", "mtu")
"""``name`` is eth0, eth1 ... in the order of the ports; ``auto`` is the same, but only at a port's first address."""

DEFAULT_TEMPLATE = """\
# Written by virtflow when this instance was made.
auto lo
iface lo inet loopback
%%

auto $auto
iface $name $family static
    address $address
    netmask $netmask
    broadcast $broadcast
    gateway $gateway
    dns-nameservers $dns
    mtu $mtu
"""

_EACH = "%%"


def render_network(vifs: Sequence[Vif], template: str = DEFAULT_TEMPLATE) -> bytes | None:
    """The file's content, or None for a guest without an address. ValueError when the template is wrong."""
    stanzas = [
        _variables(f"eth{number}", vif, address, first=position == 0)
        for number, vif in enumerate(vifs)
        for position, address in enumerate(vif["addresses"])
    ]
    return _render(template, stanzas).encode() if stanzas else None


def check_template(template: str) -> None:
    """Raise ValueError, with the reason, for a template that cannot be rendered."""
    _render(template, [dict.fromkeys(VARIABLES, "x")])


def _render(template: str, stanzas: Sequence[dict[str, str | None]]) -> str:
    lines = template.splitlines()
    if lines.count(_EACH) != 1:
        raise ValueError(f"has {lines.count(_EACH)} lines {_EACH} where it needs one")
    middle = lines.index(_EACH)
    nothing: dict[str, str | None] = {}
    rendered = [text for line in lines[:middle] if (text := _filled(line, nothing)) is not None]
    for values in stanzas:
        rendered += [text for line in lines[middle + 1 :] if (text := _filled(line, values)) is not None]
    return "\n".join(rendered) + "\n"


def _filled(line: str, values: dict[str, str | None]) -> str | None:
    template = Template(line)
    if not template.is_valid():
        raise ValueError(f"line {line[:60]!a} has a stray $")
    unknown = [name for name in template.get_identifiers() if name not in values]
    if unknown:
        raise ValueError(f"line {line[:60]!a} has an unknown variable ${unknown[0][:40]}")
    if any(values[name] is None for name in template.get_identifiers()):
        return None
    return template.substitute(values)


def _variables(name: str, vif: Vif, address: VifAddress, *, first: bool) -> dict[str, str | None]:
    interface = ipaddress.ip_interface(f"{address['address']}/{address['cidr'].rpartition('/')[2]}")
    prefix = str(interface.network.prefixlen)
    old = interface.version == 4
    return {
        "name": name,
        "auto": name if first else None,
        "family": "inet" if old else "inet6",
        "address": str(interface.ip),
        "netmask": str(interface.netmask) if old else prefix,
        "prefix": prefix,
        "broadcast": str(interface.network.broadcast_address) if old else None,
        "gateway": address["gateway"],
        "dns": " ".join(address.get("dns", ())) or None,
        "mac": vif["mac"],
        "mtu": str(vif["mtu"]),
    }
