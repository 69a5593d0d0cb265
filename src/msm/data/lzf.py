"""Chunks of complex values as HDF5's filters LZF and fletcher32 leave them, five times as fast as these make them.

What was not measured is zero, and where that is the mask says: so no repetitions are searched for. Measured values are
literal runs of at most 4, zeros repeat the byte before them. Whatever reads HDF5 reads these.

Source: LibLZF's format, as in h5py's lzf filter; H5_checksum_fletcher32 of HDF5.
"""

from functools import lru_cache

import numpy as np

ITEM = 8  # bytes of a complex64
LITERALS = 4  # values in a literal run, which has at most 32 bytes
LONGEST = 264  # bytes of a repetition
LZF_LEFT_OUT = 1  # filter mask of a chunk that is stored as it is
BLOCK, BLOCKS = 4096, 16  # words of a check sum that are added up at a time, and how many times


def chunk_of(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The chunk that holds values where a mask is true, and zeros elsewhere.

    Args:
        values: (coils, H, W), complex64.
        mask: (H, W), bool.

    Returns:
        bytes for a dataset with the filters lzf and fletcher32, and their filter mask.
    """
    frame, places = _frame(np.packbits(mask).tobytes(), mask.size)
    left_out = 0 if len(frame) < mask.size * ITEM else LZF_LEFT_OUT
    length = mask.size * ITEM if left_out else len(frame)
    chunk = np.empty(len(values) * length + 4, np.uint8)
    content = chunk[:-4].reshape(len(values), length)
    if left_out:
        content.view(np.complex64)[:] = np.where(mask, values, 0).reshape(len(values), -1)
    else:
        content[:] = frame
        at_any_byte = (len(values), length - ITEM + 1)
        np.ndarray(at_any_byte, np.complex64, chunk.data, strides=(length, 1))[:, places] = values[:, mask]
    chunk[-4:] = np.array([fletcher32(chunk[:-4])], "<u4").view(np.uint8)
    return chunk, left_out


@lru_cache(maxsize=2)
def _frame(bits: bytes, size: int) -> tuple[np.ndarray, np.ndarray]:
    """LZF of one coil with gaps for the measured values, and where these begin."""
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=size).view(bool)
    starts = np.flatnonzero(np.diff(mask, prepend=~mask[:1]))
    counts, literal = np.diff(starts, append=size), mask[starts]
    repeats, rest = np.divmod(counts * ITEM - 1, LONGEST)  # the first zero is a literal; of the rest 7 bytes or more
    zeros = 2 + 3 * repeats + np.where(rest == ITEM - 1, 2, 3)
    lengths = np.where(literal, counts * ITEM + -(-counts // LITERALS), zeros)
    begins = np.cumsum(lengths) - lengths
    frame = np.zeros(lengths.sum(), np.uint8)

    run = np.repeat(np.arange(len(starts)), counts)[mask]
    number = np.flatnonzero(mask) - starts[run]  # of a value in its run
    places = begins[run] + number * ITEM + number // LITERALS + 1
    heads = number % LITERALS == 0
    frame[places[heads] - 1] = np.minimum(LITERALS, (counts[run] - number)[heads]) * ITEM - 1

    run = np.repeat(np.arange(len(starts)), np.where(literal, 0, repeats))
    number = np.arange(len(run)) - np.searchsorted(run, run)
    whole = begins[run] + 2 + 3 * number
    frame[whole], frame[whole + 1] = 0xE0, LONGEST - 9
    last, rest = (begins + 2 + 3 * repeats)[~literal], rest[~literal]
    frame[last] = np.where(rest == ITEM - 1, ITEM - 3 << 5, 0xE0)
    long = rest > ITEM - 1
    frame[last[long] + 1] = rest[long] - 9
    return frame, places


def fletcher32(content: np.ndarray) -> int:
    """HDF5's check sum of bytes (n,): of big-endian words w, Σ w and the sum of its partial sums, modulo 65535.

    Read as little-endian words, which is faster, both are 256 times smaller: 256² is 1 modulo 65535.
    """
    even = len(content) // 2 * 2
    words = content[:even].view("<u2")
    weights = np.stack([np.arange(BLOCK, 0, -1.0), np.ones(BLOCK)], 1)
    buffer = np.empty((BLOCKS, BLOCK))  # stays in the processor's cache
    first = second = 0
    for start in range(0, len(words), buffer.size):
        piece = words[start : start + buffer.size]
        rows = -(-len(piece) // BLOCK)
        flat = buffer[:rows].reshape(-1)
        flat[: len(piece)], flat[len(piece) :] = piece, 0
        partial, sums = (buffer[:rows] @ weights).T.astype(np.int64)  # exact: below 2^40
        second += int((partial + (first + np.cumsum(sums) - sums) * BLOCK).sum())
        first += int(sums.sum())
        second -= first * (rows * BLOCK - len(piece))  # of the zeros behind the last word
    first, second = 256 * first, 256 * second
    if even < len(content):
        first += int(content[-1]) << 8
        second += first
    return (_folded(second) << 16) | _folded(first)


def _folded(total: int) -> int:
    """Modulo 65535; 65535 stands for 0, but of a sum of nothing."""
    return (total - 1) % 65535 + 1 if total else 0
