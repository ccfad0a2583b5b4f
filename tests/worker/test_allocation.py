"""A step of a network finds the memory that the step before gave back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")

STEPS = """
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

GIVEN_BACK = """
import ctypes, psutil
from ai4sdk.worker.allocation import give_back_memory, keep_memory
keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
array = libc.malloc(200 << 20)
ctypes.memset(array, 1, 200 << 20)
libc.free(array)
before = psutil.Process().memory_info().rss
give_back_memory()
print(before - psutil.Process().memory_info().rss >> 20)
"""


def said(program: str, **env: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", program], env=kept | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_what_a_step_freed_is_there_for_the_next_one() -> None:
    assert said(STEPS) < 100


def test_the_environment_has_the_last_word() -> None:
    assert said(STEPS, MALLOC_MMAP_THRESHOLD_="131072") > 1000


def test_what_was_needed_once_is_given_back() -> None:
    assert said(GIVEN_BACK) >= 190
