"""Memory: freed pages that stay at hand, and the errors that say that it, or another process, is not there."""

import ctypes
import mmap
import os
import platform
import resource
import sys

from ..errors import one_line

NOT_HELD = (  # as accelerate's should_reduce_batch_size, which takes memory to import; and the system's ENOMEM
    "Cannot allocate memory",
    *(" out of memory.", "MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory"),
    *("CUDNN_STATUS_NOT_SUPPORTED.", "PT_DEVMEM Allocation failed"),
)
NOT_MADE = "could not create a "  # oneDNN's words, of a primitive or a memory object
NOT_LOADED = "failed to map segment"  # the loader's words, of a library that memory does not hold
PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "NCCL error", "Broken pipe")  # gloo, NCCL
LIBRARIES = 500 * 10**6  # bytes that networks' libraries take beside PyTorch: 540 to sample, 690 to train, as measured
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next tensor: pages that it fetches anew may cost a quarter of all time."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def check_room() -> None:
    """Refuse a limit on memory (ulimit -v) below what the libraries of networks take: imports in want of it may hang.

    Raises:
        ImportError: not even PyTorch fits.
        MemoryError: the others do not.
    """
    if not _limited() or "diffusers" in sys.modules:
        return
    import torch  # noqa: F401

    try:
        mmap.mmap(-1, LIBRARIES).close()  # taken and given back, not touched
    except OSError as error:
        raise MemoryError(f"the libraries of networks take {LIBRARIES / 1e9:g} GB beside PyTorch") from error


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def most_memory() -> int:
    """Bytes of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def shortage(error: BaseException) -> str | None:
    """What the machine lacked, and what to do, in one line; None if it was something else, that caused it too."""
    text, reason = str(error), None
    if isinstance(error, RuntimeError) and "new thread" in text:
        return "the machine starts no more threads; allow more processes and memory (ulimit -u, ulimit -v)"
    if isinstance(error, ImportError) and NOT_LOADED in text:
        reason = text.splitlines()[-1]  # NumPy has much to say before
    elif out_of_memory(error):
        reason = one_line(text)[:200] or "no reason given"
    if reason:
        return f"memory does not suffice ({reason}); allow more (ulimit -v), or work on less at a time"
    between = any(kind.__name__ == "DistError" for kind in type(error).__mro__)  # torch.distributed's
    if "RANK" in os.environ and (between or (isinstance(error, RuntimeError) and any(w in text for w in PEER_LOST))):
        return "another process of this run ended; what it said tells why"
    return None if error.__cause__ is None else shortage(error.__cause__)


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device, or of the machine, did not suffice."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in NOT_HELD)):
        return True
    return _limited() and (isinstance(error, SystemError) or str(error).startswith(NOT_MADE))


def _limited() -> bool:
    """Whether ulimit -v is set."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
