"""Freed memory, kept for the next batch."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MEGABYTE = 1 << 20


def keep_freed_memory() -> None:
    """Has glibc keep up to 512 MB that was freed in pieces of less than 32 MB (the most that older
    versions take): else it gives a step's logits back to the system, which clears every page of the
    next step's. For processes that are our own; on other systems nothing is done."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * MEGABYTE)
        libc.mallopt(M_TRIM_THRESHOLD, 512 * MEGABYTE)
