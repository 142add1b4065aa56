"""What networks that were trained on parts of a role's records tell of each record."""

from __future__ import annotations

import torch

from base_model import Context

FOLDS = 5


def of_each_record(values: torch.Tensor, context: Context) -> torch.Tensor:
    """Values (n, ...) of the train records as a table that numbers of records index."""
    table = values.new_zeros(len(context.data.records), *values.shape[1:])
    table[context.data.train] = values
    return table


def posteriors_of(context: Context, left_out: torch.Tensor) -> torch.Tensor:
    """Posteriors (M, n, C), float64, on all n train records of M networks.

    Args:
        left_out: (n, M) bool on the CPU, which records a network is not trained on.
    """
    train = context.data.train
    subsets = [train[~out.to(train.device)] for out in left_out.T]
    return context.sub_models(subsets).double().softmax(dim=2)


def memorisation(context: Context) -> torch.Tensor:
    """How much each train record is memorised (n,), -1 to 1: the mean posterior of its class by
    the networks that were trained on it, less that by the one that was not (Feldman & Zhang,
    NeurIPS 2020, eq. 1).

    The train records are cut at random into `FOLDS` folds, and each network is trained on all but
    one: a record is out of one network and in `FOLDS` - 1.
    """
    n = len(context.data.train)
    fold = torch.randperm(n, generator=context.subsets) % FOLDS
    left_out = fold.unsqueeze(1) == torch.arange(FOLDS)
    p = posteriors_of(context, left_out)
    own = context.data.records.y[context.data.train].expand(FOLDS, n)
    p_y = p.gather(2, own.unsqueeze(2)).squeeze(2)  # (FOLDS, n)
    out = left_out.T.to(p_y.device)
    return (p_y * ~out).sum(dim=0) / (FOLDS - 1) - (p_y * out).sum(dim=0)
