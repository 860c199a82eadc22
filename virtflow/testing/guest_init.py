"""What the test guest does when it boots: the text of its ``/init`` and the kernel modules that it loads.

A busybox system that never leaves its initramfs. It tells on the serial console what it was given, so that a test can
compare it with what it asked for:

``GUEST-UP s``                          userspace runs; seconds on the guest's clock
``CONFIG-DRIVE /dev/sr0 iso9660 {..}``  device, file system and meta_data.json of the config drive (or ``none``)
``USER-DATA-BEGIN`` .. ``-END``         user_data between the two lines
``NETWORK-DATA {..}``, ``VENDOR-DATA {..}``
``CONTENT 0000 sha256``                 a line for every injected file
``NIC eth0 52:54:..``                   a line for every interface, with its MAC address
``ADDRESS eth0 10.0.0.5 255.255.255.0`` an IPv4 address of network_data.json that it has set, and ``GATEWAY``
``DISK vdb ext4 ephemeral0``            file system and label of every disk that it could mount, swapped on for ``swap``
``FILE vda /opt/app.conf sha256``       a line for every file on an ext4 one
``GUEST-READY``
``PARTS vda=32768 ...``                 disks and sizes in KiB, again whenever they change
``TICK n``                              every second, for as long as it runs
``WROTE n``, ``NOT-WRITTEN n``          sector n of its last disk, with ``labwrite``
``GUEST-POWEROFF``                      the ACPI power button was pressed
``FROZEN``, ``THAWED``                  libvirt asked for it, through the guest agent's channel where there is one

Words on the kernel's command line: ``labip=10.7.0.7/24`` sets eth0, ``labstress`` dirties memory all the time,
``labwrite`` writes to the last disk, once there are two, a sector after the other, and reads each again.
"""

from __future__ import annotations

MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "ata_piix",
    "isofs",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
    "button",
    "evdev",
)
"""Debian's cloud kernel has these as modules; what they depend on comes along, what is built in is left out."""

POWER_BUTTON = """\
#!/bin/busybox sh
echo GUEST-POWEROFF >/dev/console
sync
poweroff -f
"""
"""busybox acpid runs this when the ACPI power button is pressed, which is what libvirt's shutdown does."""

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /mods/*; do insmod "$module" 2>/dev/null; done
# Started long before GUEST-READY, so that a shutdown right after it finds its eyes open.
acpid -l /dev/null
read -r up _ </proc/uptime
echo "GUEST-UP $up"

DATA=/cd/openstack/latest

mount_config_drive() {
    for dev in /dev/sr? /dev/vd? /dev/sd?; do
        [ -b "$dev" ] || continue
        # The volume identifier of an ISO stands 40 bytes into its 17th sector of 2048 bytes.
        if [ "$(dd if="$dev" bs=1 skip=32808 count=8 2>/dev/null)" = config-2 ]; then fs=iso9660; else fs=vfat; fi
        mount -t $fs -o ro "$dev" /cd 2>/dev/null || continue
        [ -d /cd/openstack ] && return 0
        umount /cd
    done
    return 1
}

one_line() { tr -d '\r\n' <"$1"; }
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

interface_of() {
    for nic in /sys/class/net/*; do
        [ "$(cat "$nic/address")" = "$1" ] && echo "${nic##*/}" && return
    done
}

# network_data.json without a JSON parser: every object on a line of its own, then field by field.
configure_network() {
    one_line $DATA/network_data.json | tr '{}' '\n\n' >/run/objects
    grep '"ip_address"' /run/objects | while read -r object; do
        address=$(echo "$object" | field ip_address)
        netmask=$(echo "$object" | field netmask)
        link=$(echo "$object" | field link)
        case "$address" in *.*.*.*) ;; *) continue ;; esac
        device=$(grep '"ethernet_mac_address"' /run/objects | grep "\"$link\"" | field ethernet_mac_address)
        device=$(interface_of "$device")
        [ -n "$device" ] && [ -n "$netmask" ] || continue
        ifconfig "$device" "$address" netmask "$netmask" up && echo "ADDRESS $device $address $netmask"
    done
    gateway=$(grep '"gateway"' /run/objects | grep '"network": *"0\.0\.0\.0"' | field gateway | head -n 1)
    [ -n "$gateway" ] && route add default gw "$gateway" 2>/dev/null && echo "GATEWAY $gateway"
}

tell_config_drive() {
    echo "CONFIG-DRIVE $dev $fs $(one_line $DATA/meta_data.json)"
    name=$(one_line $DATA/meta_data.json | field hostname)
    [ -n "$name" ] && hostname "$name"
    if [ -f $DATA/user_data ]; then
        echo USER-DATA-BEGIN
        cat $DATA/user_data
        echo
        echo USER-DATA-END
    fi
    [ -f $DATA/vendor_data.json ] && echo "VENDOR-DATA $(one_line $DATA/vendor_data.json)"
    for file in /cd/openstack/content/*; do
        [ -f "$file" ] && echo "CONTENT ${file##*/} $(sha256sum <"$file" | cut -d' ' -f1)"
    done
    if [ -f $DATA/network_data.json ]; then
        echo "NETWORK-DATA $(one_line $DATA/network_data.json)"
        configure_network
    fi
}

text_at() { dd if="$1" bs=1 skip="$2" count="$3" 2>/dev/null | tr -d '\0'; }
ext4_magic=$(printf '\123\357')

# What is asked about is looked at first: the kernel complains on the console of what it cannot mount.
tell_disks() {
    for disk in /dev/vd? /dev/sd?; do
        [ -b "$disk" ] && [ "$disk" != "$dev" ] || continue
        if [ "$(text_at $disk 4086 10)" = SWAPSPACE2 ]; then
            swapon $disk && echo "DISK ${disk##*/} swap $(text_at $disk 1052 16)" && swapoff $disk
        elif [ "$(text_at $disk 1080 2)" = "$ext4_magic" ]; then
            mount -t ext4 -o ro $disk /disk || continue
            echo "DISK ${disk##*/} ext4 $(text_at $disk 1144 16)"
            find /disk -type f | while read -r file; do
                echo "FILE ${disk##*/} ${file#/disk} $(sha256sum <"$file" | cut -d' ' -f1)"
            done
            umount /disk
        elif [ "$(text_at $disk 82 5)" = FAT32 ]; then
            mount -t vfat -o ro $disk /disk && echo "DISK ${disk##*/} vfat $(text_at $disk 71 11)" && umount /disk
        fi
    done
}

ifconfig lo 127.0.0.1 up
for nic in /sys/class/net/*; do echo "NIC ${nic##*/} $(cat "$nic/address")"; done

# CD drives are probed in the background, later on a busy host.
dev=
for attempt in 1 2 3 4 5 6 7 8; do
    mount_config_drive && break
    dev=
    sleep 0.25
done
if [ -n "$dev" ]; then tell_config_drive; else echo "CONFIG-DRIVE none"; fi
tell_disks

address=$(sed -n 's/.*labip=\([^ ]*\).*/\1/p' /proc/cmdline)
[ -n "$address" ] && ip link set eth0 up && ip addr add "$address" dev eth0

if grep -q labstress /proc/cmdline; then
    mount -t tmpfs stress /run
    for part in 1 2 3 4 5 6 7 8 9 10; do cat /bin/busybox; done >/run/a
    (while :; do cat /run/a >/run/b; cat /run/b >/run/a; done) &
fi

if grep -q labwrite /proc/cmdline; then
    sector=0
    (while sleep 0.3; do
        for disk in /dev/vd[b-z]; do :; done
        [ -b "$disk" ] || continue
        sector=$((sector + 1))
        printf '%-512s' "SECTOR $sector" >/sector
        if dd if=/sector of="$disk" bs=512 seek=$sector oflag=direct 2>/dev/null &&
            dd if="$disk" bs=512 skip=$sector count=1 iflag=direct 2>/dev/null | cmp -s - /sector && [ -b "$disk" ]
        then echo "WROTE $sector"; else echo "NOT-WRITTEN $sector"; fi
        # The disk went away between the look and the writing, which has made a file.
        [ -f "$disk" ] && rm "$disk"
    done) &
fi

# As much of QEMU's guest agent as it takes to freeze and thaw (QEMU, docs/interop/qemu-ga-ref): there is nothing to do.
agent() {
    while read -r asked <&3; do
        case "$asked" in
            *guest-sync*) echo "{\"return\": $(echo "$asked" | tr -cd '0-9')}" >&3 ;;
            *guest-fsfreeze-freeze*) echo FROZEN; echo '{"return": 1}' >&3 ;;
            *guest-fsfreeze-thaw*) echo THAWED; echo '{"return": 1}' >&3 ;;
            *) echo '{"error": {"class": "CommandNotFound", "desc": "not here"}}' >&3 ;;
        esac
    done
}
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ] || continue
    # While nobody has connected at the other end, reading finds an end at once.
    (exec 3<>"/dev/${port##*/}" && while :; do agent; sleep 0.2; done) &
done

echo GUEST-READY

before=
tick=0
while :; do
    now=$(tail -n +3 /proc/partitions | awk '{ printf "%s=%s ", $4, $3 }')
    [ "$now" != "$before" ] && echo "PARTS $now" && before=$now
    tick=$((tick + 1))
    echo "TICK $tick"
    sleep 1
done
"""
