"""Memory of a process with many threads, by the C library's own account of its arenas, and of a hub with transfers."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

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


@pytest.mark.slow
def test_a_hub_holds_the_model_and_its_sum_and_what_transfers_take_is_little_for_any_number_of_members() -> None:
    """Models of 200 MB; transfers take some tens of MiB, which does not grow with the model."""
    command = [sys.executable, "-m", "benchmarks", "links", "--megabytes", "200", "--rounds", "2", "--members"]
    found = []
    for members in ("1", "4"):
        done = subprocess.run([*command, members], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        found.append(float(done.stdout.partition("memory of the hub: ")[2].split()[0]))
    assert all(1.0 <= models < 1.4 for models in found), found
