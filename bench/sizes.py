"""What models take, as it is written in tables and lines; see `CompressionSize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.console import percent
from quantizer.compression_size import CompressionSize

# title in a table, and how a size is written there
_COLUMNS: dict[str, Callable[[CompressionSize], str]] = {
    "non-zero %": lambda size: percent(size.density),
    "bits a weight": lambda size: f"{size.bits_per_weight:.2f}",
    "kB dense": lambda size: _thousands(size.dense_bytes),
    "kB compressed": lambda size: _thousands(size.compressed_bytes),
    "k multiply-adds": lambda size: _thousands(size.multiply_adds),
    "k of non-zero": lambda size: _thousands(size.nonzero_multiply_adds),
}
SIZE_TITLES = tuple(_COLUMNS)


def size_cells(size: dict | None) -> list[str]:
    """What stands under each of `SIZE_TITLES`; dashes for a model of which nothing was counted."""
    if size is None:
        return ["-"] * len(_COLUMNS)
    return [cell(CompressionSize(**size)) for cell in _COLUMNS.values()]


def size_in_words(size: dict) -> str:
    """What it takes, for a line."""
    of = CompressionSize(**size)
    return (
        f"{percent(of.density)} % of the weights are not zero, {of.bits_per_weight:.2f} bits each; "
        f"{_thousands(of.compressed_bytes)} kB, dense {_thousands(of.dense_bytes)} kB; "
        f"{of.multiply_adds:,} multiply-adds a record, {of.nonzero_multiply_adds:,} of them by "
        f"weights that are not zero"
    )


def size_rows(sizes: Sequence[dict | None]) -> list[list[str]]:
    """A row of a table for each of `SIZE_TITLES`, a column for each model."""
    columns = [size_cells(size) for size in sizes]
    return [[title, *row] for title, *row in zip(SIZE_TITLES, *columns)]


def _thousands(number: int) -> str:
    return f"{number / 1000:,.1f}"
