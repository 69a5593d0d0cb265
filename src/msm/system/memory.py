"""Memory: freed pages that stay at hand, and the errors that say that it does not suffice."""

import ctypes
import os
import platform
import resource
import sys

from ..errors import one_line

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next tensor: pages that it fetches anew may cost a quarter of all time."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def most_memory() -> int:
    """Bytes of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def shortage(error: Exception) -> str | None:
    """What the machine lacked, and what to do, in one line; None if it was something else."""
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        return "the machine starts no more threads; allow more processes and memory (ulimit -u, ulimit -v)"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
        reason = one_line(str(error))[:200] or "no reason given"
        return f"memory does not suffice ({reason}); allow more (ulimit -v), or work on less at a time"
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether the memory of the device, or of the machine, did not suffice."""
    from accelerate.utils.memory import should_reduce_batch_size  # takes seconds to import

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)
