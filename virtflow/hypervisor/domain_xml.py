"""Build the libvirt XML of a domain from plain values, and check it against libvirt's own schema.

The document is a tree of lxml elements, so no text of a user can become markup. The same spec always gives the same
text. Reference: https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import functools
import ipaddress
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from lxml import etree
from lxml.builder import E, ElementMaker  # type: ignore[import-not-found]  # lxml-stubs leaves it out

from virtflow.errors import HostStorageError, InvalidDomainXml, InvalidRequest
from virtflow.hypervisor.capabilities import SCHEMA_DIR
from virtflow.hypervisor.safe_xml import parse, text_for_xml

METADATA_NAMESPACE = "https://virtflow.dev/xmlns/1"

_METADATA = ElementMaker(namespace=METADATA_NAMESPACE, nsmap={"virtflow": METADATA_NAMESPACE})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SERIAL = re.compile(r"[A-Za-z0-9_.+ -]+")
_PCI_EXPRESS = re.compile(r"(pc-)?q35|virt")
_OTHER_DEVICES = 5
"""Others that a guest has at most: balloon, rng, and controllers of USB, SCSI and serial lines."""
_CPU_MODES = ("host-passthrough", "host-model", "maximum")
_schema_lock = threading.Lock()


@dataclass(frozen=True)
class NetworkSource:
    """A disk that QEMU itself reaches. ``protocol`` is iscsi, whose ``name`` is target/LUN, or nbd, the export's name.

    ``secret`` is the usage of the secret in which libvirt keeps the password of ``user``. ``reconnect``: for so many
    seconds QEMU keeps requests while it looks for an NBD server that has gone; libvirt knows that since 9.2.
    """

    protocol: str
    name: str
    address: str
    port: int
    user: str = ""
    secret: str = ""
    reconnect: int = 0


@dataclass(frozen=True)
class DiskSpec:
    """``path`` is absolute; ``format`` is what is recorded for the file, never probed; ``cache`` is QEMU's word.

    ``path`` is a device with ``block``, and not used with ``network``. ``key`` is the uuid of the secret in which
    libvirt keeps the key of a LUKS disk. With ``halts`` QEMU halts the guest at an I/O error, and tries again when the
    guest is let run, instead of telling the guest of it.
    """

    path: str
    format: str
    bus: str
    target: str
    device: str = "disk"
    cache: str = "none"
    readonly: bool = False
    serial: str | None = None
    block: bool = False
    network: NetworkSource | None = None
    key: str | None = None
    halts: bool = False


@dataclass(frozen=True)
class VifSpec:
    """A tap that exists already. ``filter`` names an nwfilter, which is told the ``addresses`` as IP and IPV6."""

    mac: str
    tap: str
    model: str = "virtio"
    mtu: int | None = None
    filter: str | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class UefiSpec:
    """``code`` is shared and read-only; libvirt copies ``template`` to ``nvram``, the guest's own, when it starts."""

    code: str
    template: str
    nvram: str


@dataclass(frozen=True)
class DomainSpec:
    """``name`` must be safe, ``title`` is the user's text. ``virt_type`` is qemu (TCG) or kvm.

    ``cpu_model`` is a model's name or one of host-passthrough, host-model, maximum; None takes what suits virt_type.
    With ``kernel`` QEMU boots it directly, otherwise the firmware boots the first disk. ``uefi`` replaces the BIOS.
    ``vnc`` listens on 127.0.0.1; ``video_model`` None is a VGA where there is VNC, and nothing where there is none.
    ``hotplug_ports`` slots are free on a machine with PCI Express, where each device takes one; on others all are.
    ``tcg_cache_mib`` bounds the memory of QEMU's code translator, which otherwise grows with the guest's.
    """

    uuid: str
    name: str
    operation: str
    host: str
    virt_type: str
    machine: str
    vcpus: int
    memory_mib: int
    console_log: str
    arch: str = "x86_64"
    title: str = ""
    disks: tuple[DiskSpec, ...] = ()
    vifs: tuple[VifSpec, ...] = ()
    emulator: str | None = None
    cpu_model: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    uefi: UefiSpec | None = None
    vnc: bool = False
    video_model: str | None = None
    rng_model: str = "virtio"
    guest_agent: bool = False
    memballoon: bool = True
    tcg_cache_mib: int | None = None
    hotplug_ports: int = 0


def build(spec: DomainSpec) -> str:
    """The domain's XML. Raises InvalidRequest for text that libvirt or XML cannot carry, naming the field."""
    if not _NAME.fullmatch(spec.name):
        raise InvalidRequest(field="name", reason="letters, digits, '_', '.' and '-', at most 63, no mark in front")
    domain = E.domain(
        E.name(spec.name),
        E.uuid(text_for_xml(spec.uuid, "uuid")),
        *([E.title(text_for_xml(spec.title, "title"))] if spec.title else []),
        E.metadata(
            _METADATA.instance(
                operation=text_for_xml(spec.operation, "operation"), host=text_for_xml(spec.host, "host")
            )
        ),
        E.memory(str(spec.memory_mib), unit="MiB"),
        E.vcpu(str(spec.vcpus)),
        _os(spec),
        _features(spec),
        *_cpu(spec),
        _clock(spec),
        E.on_poweroff("destroy"),
        E.on_reboot("restart"),
        E.on_crash("destroy"),
        _devices(spec),
        type=text_for_xml(spec.virt_type, "virt_type"),
    )
    return str(etree.tostring(domain, pretty_print=True, encoding="unicode"))


def validate(xml: str, schema_dir: str = SCHEMA_DIR) -> None:
    """Raise InvalidDomainXml when ``xml`` does not match libvirt's ``domain.rng``; ``element`` is the path to it.

    Raises HostStorageError when the schema is not there.
    """
    document = parse(xml)
    with _schema_lock:  # the log of errors belongs to the compiled schema, not to the call
        schema = _schema(schema_dir)
        if schema.validate(document):
            return
        # RelaxNG reports the failure again at each level on its way up: the deepest place is the one at fault
        fault = max(schema.error_log, key=lambda entry: (entry.path or "").count("/"))
        raise InvalidDomainXml(element=fault.path or "/domain", reason=fault.message)


@functools.lru_cache(maxsize=4)
def _schema(schema_dir: str) -> etree.RelaxNG:
    path = PurePosixPath(schema_dir) / "domain.rng"
    try:
        return etree.RelaxNG(etree.parse(str(path)))
    except (OSError, etree.XMLSyntaxError, etree.RelaxNGParseError) as error:
        raise HostStorageError(action="read libvirt's schema", path=path, reason=str(error)) from error


def _is_x86(spec: DomainSpec) -> bool:
    return spec.arch in ("x86_64", "i686")


def _os(spec: DomainSpec) -> etree._Element:
    element: etree._Element = E.os(
        E.type("hvm", arch=text_for_xml(spec.arch, "arch"), machine=text_for_xml(spec.machine, "machine"))
    )
    if spec.uefi is not None:
        element.append(E.loader(_absolute(spec.uefi.code, "uefi code"), readonly="yes", type="pflash"))
        template = _absolute(spec.uefi.template, "uefi template")
        element.append(E.nvram(_absolute(spec.uefi.nvram, "nvram"), template=template))
    if spec.kernel is None:
        element.append(E.boot(dev="hd"))
        return element
    element.append(E.kernel(_absolute(spec.kernel, "kernel")))
    if spec.initrd is not None:
        element.append(E.initrd(_absolute(spec.initrd, "initrd")))
    if spec.cmdline is not None:
        element.append(E.cmdline(text_for_xml(spec.cmdline, "cmdline")))
    return element


def _features(spec: DomainSpec) -> etree._Element:
    features: etree._Element = E.features(E.acpi())
    if _is_x86(spec):
        features.append(E.apic())
    if spec.tcg_cache_mib is not None and spec.virt_type == "qemu":
        features.append(E.tcg(E("tb-cache", str(spec.tcg_cache_mib), unit="MiB")))
    return features


def _cpu(spec: DomainSpec) -> list[etree._Element]:
    model = spec.cpu_model
    if model is None and spec.virt_type == "kvm":
        model = "host-model"
    if model is None and _is_x86(spec):
        model = "Nehalem"  # a guest under TCG boots about 1 s faster on it than on everything that TCG can emulate
    if model is None:
        return []
    if model in _CPU_MODES:
        return [E.cpu(mode=model)]
    name = E.model(text_for_xml(model, "cpu_model"), fallback="forbid")
    return [E.cpu(name, mode="custom", match="exact", check="none")]


def _clock(spec: DomainSpec) -> etree._Element:
    clock: etree._Element = E.clock(offset="utc")
    if spec.virt_type == "kvm" and _is_x86(spec):
        # lost ticks are made up for, and no timer wakes the host for nothing
        clock.append(E.timer(name="rtc", tickpolicy="catchup"))
        clock.append(E.timer(name="pit", tickpolicy="delay"))
        clock.append(E.timer(name="hpet", present="no"))
    return clock


def _root_ports(spec: DomainSpec) -> int:
    """libvirt makes one for each device and leaves one or two, or takes those that there are."""
    if not spec.hotplug_ports or not _PCI_EXPRESS.match(spec.machine):
        return 0
    taken = sum(disk.bus == "virtio" for disk in spec.disks) + len(spec.vifs)
    return taken + _OTHER_DEVICES + spec.hotplug_ports


def _devices(spec: DomainSpec) -> etree._Element:
    devices: etree._Element = E.devices()
    if spec.emulator is not None:
        devices.append(E.emulator(_absolute(spec.emulator, "emulator")))
    devices.extend(disk_element(disk) for disk in spec.disks)
    if any(disk.bus == "scsi" for disk in spec.disks):
        devices.append(E.controller(type="scsi", index="0", model="virtio-scsi"))
    if not spec.vnc and not any(disk.bus == "usb" for disk in spec.disks):
        devices.append(E.controller(type="usb", model="none"))
    ports = range(1, _root_ports(spec) + 1)  # 0 is the root itself
    devices.extend(E.controller(type="pci", index=str(index), model="pcie-root-port") for index in ports)
    devices.extend(_interface(vif) for vif in spec.vifs)
    # append: QEMU would empty the log at every start, and with it what a failed boot said
    log = E.source(path=_absolute(spec.console_log, "console_log"), append="on")
    devices.append(E.serial(log, E.target(port="0"), type="file"))
    if spec.guest_agent:
        devices.append(E.channel(E.target(type="virtio", name="org.qemu.guest_agent.0"), type="unix"))
    if spec.vnc:
        devices.append(E.input(type="tablet", bus="usb"))
        devices.append(E.graphics(type="vnc", autoport="yes", listen="127.0.0.1"))
    video = spec.video_model or ("vga" if spec.vnc else None)
    if video is not None:
        devices.append(E.video(E.model(type=text_for_xml(video, "video_model"))))
    devices.append(
        E.memballoon(E.stats(period="10"), model="virtio") if spec.memballoon else E.memballoon(model="none")
    )
    rng_model = text_for_xml(spec.rng_model, "rng_model")
    devices.append(E.rng(E.backend("/dev/urandom", model="random"), model=rng_model))
    return devices


def disk_element(disk: DiskSpec) -> etree._Element:
    """One disk. Raises InvalidRequest for what XML or libvirt cannot carry."""
    driver = E.driver(
        name="qemu", type=text_for_xml(disk.format, "disk format"), cache=text_for_xml(disk.cache, "disk cache")
    )
    writable = disk.device == "disk" and not disk.readonly
    if writable:
        driver.set("discard", "unmap")  # what the guest trims leaves the overlay
    if disk.halts:
        driver.set("error_policy", "stop")  # of reads, too, where nothing else is said of them
    kind, source = _disk_source(disk)
    if disk.key is not None:
        key = E.secret(type="passphrase", uuid=text_for_xml(disk.key, "key"))
        source.append(E.encryption(key, format="luks"))
    element: etree._Element = E.disk(
        driver,
        source,
        E.target(dev=text_for_xml(disk.target, "disk target"), bus=text_for_xml(disk.bus, "disk bus")),
        type=kind,
        device=text_for_xml(disk.device, "disk device"),
    )
    if not writable:
        element.append(E.readonly())
    if disk.serial is not None:
        if not _SERIAL.fullmatch(disk.serial):
            raise InvalidRequest(field="disk serial", reason="letters, digits, space, '_', '.', '+' and '-' only")
        element.append(E.serial(disk.serial))
    return element


def _disk_source(disk: DiskSpec) -> tuple[str, etree._Element]:
    """libvirt's type of the disk, and where it is."""
    if disk.network is None:
        path = _absolute(disk.path, "disk path")
        return ("block", E.source(dev=path)) if disk.block else ("file", E.source(file=path))
    network = disk.network
    host = E.host(name=text_for_xml(network.address, "address"), port=str(network.port))
    protocol = text_for_xml(network.protocol, "protocol")
    source: etree._Element = E.source(host, protocol=protocol, name=text_for_xml(network.name, "target"))
    if network.user:
        secret = E.secret(type="iscsi", usage=text_for_xml(network.secret, "usage"))
        source.append(E.auth(secret, username=text_for_xml(network.user, "user")))
    if network.reconnect:
        source.append(E.reconnect(delay=str(network.reconnect)))
    return "network", source


def _interface(vif: VifSpec) -> etree._Element:
    element: etree._Element = E.interface(
        E.mac(address=text_for_xml(vif.mac, "mac")),
        # managed=no: the tap is made, and removed, by the network driver; libvirt only opens it
        E.target(dev=text_for_xml(vif.tap, "tap"), managed="no"),
        E.model(type=text_for_xml(vif.model, "vif model")),
        type="ethernet",
    )
    if vif.mtu is not None:
        element.append(E.mtu(size=str(vif.mtu)))
    if vif.filter is not None:
        element.append(E.filterref(*_filter_parameters(vif.addresses), filter=text_for_xml(vif.filter, "filter")))
    return element


def _filter_parameters(addresses: Iterable[str]) -> list[etree._Element]:
    parameters: list[etree._Element] = []
    for address in addresses:
        try:
            version = ipaddress.ip_address(address).version
        except ValueError as error:
            raise InvalidRequest(field="address", reason=str(error)) from error
        parameters.append(E.parameter(name="IP" if version == 4 else "IPV6", value=address))
    return parameters


def _absolute(path: str, field: str) -> str:
    if not path.startswith("/"):
        raise InvalidRequest(field=field, reason="must be an absolute path")
    return text_for_xml(path, field)
