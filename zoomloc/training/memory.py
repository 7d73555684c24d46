"""How the C library hands memory to a training; knows nothing of what is kept in it."""

import ctypes
import platform

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc's malloc.h
LARGEST = (1 << 31) - 1


def keep_memory() -> bool:
    """Have freed arrays kept for the next step instead of given back and mapped anew.

    Each step asks for the same large arrays; mapping fresh pages for them took an eighth of the
    processor's time. Only where the C library is glibc; says whether it was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP, 1 << 30) and libc.mallopt(_TRIM, LARGEST))
