"""SELENA: soft labels of a record by networks that never saw it."""

import torch

from base_model import Batch, Context, Objective
from defenders.criteria import log_posteriors
from defenders.sub_models import of_each_record, posteriors_of

SHARE_OUT = 0.4  # of the sub-models, that a record is left out of


class SelfDistillation(Objective):
    """Cross-entropy to the mean posterior of those sub-models that never saw the record (Tang et
    al., USENIX Security 2022, and their code).

    Of K = strength sub-models, each train record is left out of L = 0.4 K at random (25 and 10 by
    the paper); each sub-model is trained on the others. The labels of records count nowhere else
    but in the choice of the epoch by accuracy on dev.

    Training starts from new weights, as theirs does (`new_weights` in the registry); the masks, and
    in quantize.py without --pruned the weights too, are those of the original, which has seen the
    labels. Their code chooses epochs on test records.
    """

    def setup(self, context: Context) -> None:
        """Train the sub-models, and keep each record's soft label."""
        count = int(self.strength)
        out_of = max(1, round(SHARE_OUT * count))
        n = len(context.data.train)
        order = torch.rand(n, count, generator=context.subsets).argsort(dim=1)
        left_out = torch.zeros(n, count, dtype=torch.bool).scatter(1, order[:, :out_of], True)
        p = posteriors_of(context, left_out)
        out = left_out.T.unsqueeze(2).to(p.device)
        self.soft_labels = of_each_record(((p * out).sum(dim=0) / out_of).float(), context)

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return -(self.soft_labels[batch.record_ids] * log_posteriors(logits)).sum(dim=1).mean()
