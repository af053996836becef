import ctypes
import os
from pathlib import Path

import pytest

from raysparse.callbacks.memory import ReturnMemory


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_free_memory_between_what_is_used_goes_back_to_the_machine():
    blocks = [bytearray(100_000) for _ in range(3_000)]  # of glibc's heap: larger ones are mapped on their own
    kept = blocks[::50]
    del blocks
    before = resident_mib()
    ReturnMemory().trim()
    assert resident_mib() < before - 100
    assert len(kept) == 60
