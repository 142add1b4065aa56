"""What every attack is judged by."""
import numpy as np


def balanced_accuracy(decision: np.ndarray, member: np.ndarray) -> float:
    """(TPR + TNR) / 2 of decisions (n,) bool against membership (n,) bool, pooled over the classes."""
    return float((decision[member].mean() + (~decision[~member]).mean()) / 2)
