"""Random numbers for private training: from the operating system or, for replication, from a
key."""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np
from scipy.special import ndtri

SUMMANDS = 4  # normals behind each that is returned
CHUNK = 2**13  # normals made at once: their bytes and floats stay in the processor's cache


class SecretStream:
    """Bytes of the operating system's cryptographic generator.

    On Linux that is ChaCha20 under a 256-bit key of the kernel. Nothing of it is held by this
    process, so that there is nothing to store, and forked processes share no stream.
    """

    def read(self, count: int) -> bytes:
        """So many bytes that nobody can predict or repeat."""
        return os.urandom(count)

    def state(self) -> dict:
        """Nothing."""
        return {}

    def set_state(self, state: dict) -> None:
        """Nothing to do: whatever was read before, what comes is fresh."""


class SeededStream:
    """Bytes that follow from a key: SHAKE-256 of the key and the number of the call.

    Whoever has the key has the bytes.
    """

    def __init__(self, key: bytes):
        self.key, self.calls = key, 0

    def read(self, count: int) -> bytes:
        """The next bytes; they depend on the sizes of the calls before only by their number."""
        self.calls += 1
        return hashlib.shake_256(self.key + self.calls.to_bytes(8, "big")).digest(count)

    def state(self) -> dict:
        """What `set_state` needs to go on from here; the key is not in it."""
        return {"calls": self.calls}

    def set_state(self, state: dict) -> None:
        """Go on from what `state` returned."""
        self.calls = state["calls"]


Stream = SecretStream | SeededStream


def uniforms(stream: Stream, count: int) -> np.ndarray:
    """(count,) float64, uniform over the multiples of 2^-53 in (0, 1); 2^-54 takes the place of
    0."""
    whole = np.frombuffer(stream.read(8 * count), dtype="<u8") >> np.uint64(11)
    return np.maximum(whole, 0.5) * 2.0**-53


def normals(stream: Stream, count: int) -> np.ndarray:
    """(count,) float64 standard normals.

    Each is the sum of four divided by 2, all four by the inverse distribution function of uniforms
    of their own: of one alone, the least significant bits tell what was added to it (Mironov, CCS
    2012; Jin et al., S&P 2022), whereas whoever tries out the summands has 2^159 possibilities
    (Holohan & Braghin, ESORICS 2021, as Opacus does in its secure mode).
    """
    sums = np.empty(count)
    for first in range(0, count, CHUNK):
        part = sums[first : first + CHUNK]
        ndtri(uniforms(stream, SUMMANDS * len(part))).reshape(SUMMANDS, -1).sum(axis=0, out=part)
    sums /= math.sqrt(SUMMANDS)
    return sums
