"""Memory: freed pages that stay at hand, and the errors that say that it does not suffice."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next tensor: pages that it fetches anew may cost a quarter of all time."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def out_of_memory(error: Exception) -> bool:
    """Whether the memory of the device, or of the machine, did not suffice."""
    from accelerate.utils.memory import should_reduce_batch_size  # takes seconds to import

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)
