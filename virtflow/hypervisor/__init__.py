"""libvirt, as virtflow talks to it. Importing this package does not import libvirt; its modules do."""
