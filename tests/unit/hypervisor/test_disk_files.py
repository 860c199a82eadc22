"""Which files a domain has as disks."""

from __future__ import annotations

from virtflow.hypervisor.disk_files import DiskFile, disk_files


def test_disks_of_files_are_found_with_the_format_the_domain_says() -> None:
    xml = """<domain><devices>
      <disk type='file' device='disk'><driver type='qcow2'/><source file='/i/disk'/><target dev='vda'/></disk>
      <disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='vdb'/></disk>
      <disk type='file' device='cdrom'><source file='/i/disk.config'/><target dev='hda'/></disk>
      <disk type='file' device='cdrom'><target dev='hdb'/></disk>
    </devices></domain>"""
    assert disk_files(xml) == [
        DiskFile("/i/disk", "qcow2", "disk", "vda"),
        DiskFile("/i/disk.config", "raw", "cdrom", "hda"),
    ]
