"""Randomness of a defence that answers a record alike each time it is asked."""

import hashlib

import torch


class RecordDraws:
    """A generator for each record, which follows from its content and a secret key: whoever asks
    for a record again gets the answer that is known, in whichever order or batch.

    A record that is changed in its last bit is another one.

    Args:
        generator: draws the key, so that networks of two roles draw apart.
    """

    def __init__(self, generator: torch.Generator):
        key = torch.randint(2**62, (), generator=generator, device=generator.device)
        self.key = int(key).to_bytes(8, "big")

    def __call__(self, x: torch.Tensor) -> list[torch.Generator]:
        """Of records x (n, ...), n generators on the CPU."""
        rows = x.detach().contiguous().cpu().numpy()
        digests = (hashlib.sha256(self.key + row.tobytes()).digest() for row in rows)
        return [
            torch.Generator().manual_seed(int.from_bytes(digest[:8], "big")) for digest in digests
        ]
