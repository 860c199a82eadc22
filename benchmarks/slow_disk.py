"""A slow disk for whoever asks it to sync: a preloaded library that sleeps before fsync and fdatasync.

It is compiled when it is needed. It slows every system alike, and PostgreSQL's server too when that is started with it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void pause_a_while(void) {
    struct timespec left = {0, MILLISECONDS * 1000000L};
    while (nanosleep(&left, &left)) {}
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    pause_a_while();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    pause_a_while();
    return real(fd);
}
"""


@contextmanager
def slow_sync(milliseconds: int) -> Iterator[dict[str, str]]:
    """What to add to a program's environment so that each of its syncs takes that much longer. Needs gcc."""
    with tempfile.TemporaryDirectory(prefix="vfslow-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)  # the user postgres loads it too
        source, library = Path(directory, "slow.c"), Path(directory, "slow.so")
        source.write_text(_SOURCE)
        define = f"-DMILLISECONDS={milliseconds}"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", define, "-o", library, source, "-ldl"], check=True)
        yield {"LD_PRELOAD": str(library)}
