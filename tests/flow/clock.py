"""A wall clock that tests set, for a command and all that it starts; the machine's own stays as it is.

A few functions of C come before the system's (LD_PRELOAD) and add to the time what a file says. The clock that never
jumps, by which processes sleep and wait, is the kernel's, as it is when a real clock is set. The times of files are the
kernel's too: to them a clock that begins ahead and jumps to zero is one that was set back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

HOUR, DAY = 3600, 86400
LACKING = "there is no C compiler: apt-get install gcc libc6-dev"
_NOTICED = 0.25
"""Seconds after which every process goes by a new time: each reads the file anew after a tenth of a second."""
_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    static __thread struct timespec looked;
    static __thread long seconds;
    struct timespec now;
    int before = errno;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if ((now.tv_sec - looked.tv_sec) * 1000 + (now.tv_nsec - looked.tv_nsec) / 1000000 >= 100) {
        char text[32] = {0};
        const char *path = getenv("CLOCK_AHEAD");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) seconds = atol(text);
            close(file);
        }
        looked = now;
    }
    errno = before;
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec += ahead();
    return failed;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}
"""


@dataclass(frozen=True)
class Clock:
    """The clock of every process that is started with its environment."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.folder / "clock.so"), "CLOCK_AHEAD": str(self.folder / "ahead")}

    def set(self, ahead: int) -> None:
        """Make it go before the machine's by that many seconds, and wait until everybody has noticed."""
        beside = self.folder / "ahead.new"
        beside.write_text(str(ahead))
        beside.replace(self.folder / "ahead")
        time.sleep(_NOTICED)


@pytest.fixture(name="clock")
def clock_fixture(tmp_path: Path) -> Clock:
    """A clock that is right so far. In CI a machine without a compiler is a failure."""
    compiler = shutil.which("cc")
    if compiler is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(LACKING)
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "clock.c").write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "clock.so", folder / "clock.c"], check=True)
    made = Clock(folder)
    made.set(0)
    return made
