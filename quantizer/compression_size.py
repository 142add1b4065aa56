"""What a network takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CompressionSize:
    """What a network takes; weights are those of its Linear and Conv2d layers.

    Attributes:
        weights: how many there are.
        nonzero: how many of them are not zero, rounding to zero by a quantiser included.
        bits_per_weight: compressed bits of all weights, masks, scales and codebooks included, by
            `weights`; 32 where nothing is compressed.
        dense_bytes: all parameters and float buffers (BatchNorm's statistics) as float32.
        compressed_bytes: the same with weights and quantisers of inputs compressed.
        multiply_adds: of a forward pass of one record in Linear and Conv2d layers, zeros included.
        nonzero_multiply_adds: those of them whose weight is not zero.
    """

    weights: int
    nonzero: int
    bits_per_weight: float
    dense_bytes: int
    compressed_bytes: int
    multiply_adds: int
    nonzero_multiply_adds: int

    @property
    def density(self) -> float:
        """The share of the weights that is not zero."""
        return self.nonzero / self.weights
