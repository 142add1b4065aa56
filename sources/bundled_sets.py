"""Data sets that come along with a library."""

from pathlib import Path

import numpy as np


def digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, pixels 0..16 stretched to 0..255. Nothing is read from `folder`."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.round(bunch.images * 255 / 16).astype(np.uint8)[:, None], bunch.target
