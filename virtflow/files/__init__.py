"""Files and directories of the host: whole under their final name or not there at all, and locks on names."""
