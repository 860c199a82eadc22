"""The host's own file system: the directories of instances."""
