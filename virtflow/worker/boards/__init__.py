"""Where operations that have to be run are posted, and claimed by workers."""
