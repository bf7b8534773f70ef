"""Memory of a process with many threads: the C library's own account of its arenas."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys

import pytest

THREADS = 8
SCRIPT = f"""
import ctypes, sys, threading
from hierfl.link.memory import use_few_arenas

if sys.argv[1] == "few":
    use_few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
together = threading.Barrier({THREADS})

def take():
    together.wait()
    libc.malloc(4096)
    together.wait()

threads = [threading.Thread(target=take) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(ctypes.c_void_p(out))
"""


def arenas(how: str) -> int:
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    return len(re.findall(r"<heap nr=", said))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc")
def test_threads_share_two_arenas() -> None:
    assert arenas("few") == 2 < arenas("as it is")
