"""A step of a network finds the memory that the step before gave back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
from ai4sdk.worker.allocation import keep_memory
keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def step():
    arrays = [libc.malloc(size << 20) for size in (48, 100, 3)]
    for array, size in zip(arrays, (48, 100, 3)):
        ctypes.memset(array, 1, size << 20)
        libc.free(array)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**env: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=kept | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_what_a_step_freed_is_there_for_the_next_one() -> None:
    assert faults() < 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_the_environment_has_the_last_word() -> None:
    assert faults(MALLOC_MMAP_THRESHOLD_="131072") > 1000
