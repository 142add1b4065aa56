"""MemGuard: noise on posteriors that leaves an attack's classifier undecided."""

import torch
from torch import nn
from torch.nn import functional as F

from base_model import Context, Objective
from datasets import batches
from defenders.record_draws import RecordDraws
from models.layers import initialise
from models.queries import QueriesInBatches

# of members and of non-members at most, and training: 400 epochs of as many of each, or as many
# steps with fewer
RECORDS, BATCH, TRAINING_STEPS = 1000, 64, 12800
STEP, STEPS = 0.1, 299  # of a logit vector, in the direction of the gradient; at most so many
ORDER_WEIGHT = 10.0
DISTORTION_WEIGHTS = tuple(10.0**power for power in range(-1, 6))
UNDECIDED = 1e-5  # of one half


class MemGuard(Objective):
    """Add noise to a posterior such that a classifier which tells members from others by it is at
    one half (Jia et al., CCS 2019, and their code). Training is that of no defence.

    The defence's classifier h (256-128-64, ReLU; a sorted posterior gives a logit) learns from the
    role's own train and dev records, as many of each, at most 1000. A record's logits z are changed
    by steps of length 0.1 against the gradient of

        |h| + 10 relu(largest other logit - logit of the class) + c sum |p - p of the network|

    until h has crossed zero and the class is the network's, in at most 299 steps from z, for c =
    0.1, 1, ..., 1e5 until one fails; the last that did not is taken. Noise of length d = sum
    |difference of p| is then added with probability min(strength / d, 1): the strength is the
    distortion that is expected at most (their largest budget, 1, by default), and 0 where noise
    would bring h no nearer to one half, or no c succeeds.

    Where it departs: with fewer records than theirs, h takes as many steps; posteriors are sorted
    in every step (theirs once, so that the noise may be undone by an attacker who sorts); and
    whether noise is added follows from the record (`RecordDraws`; theirs keep what is drawn once
    for a query). h is trained by SGD as theirs: one that fits its records closely (by Adam, say) is
    crossed by noise that other classifiers do not see. It is trained again whenever a network is
    asked, in seconds.
    """

    keeps_class = True

    def setup_release(self, network: nn.Module, context: Context) -> None:
        """Train h on the network's answers; the generator draws records, weights and batches."""
        data, generator = context.data, context.generator
        assert data.dev is not None  # each role has them
        self.draws = RecordDraws(generator)
        count = min(len(data.train), len(data.dev), RECORDS)
        chosen = torch.cat(
            [
                part[torch.randperm(len(part), generator=generator, device=part.device)[:count]]
                for part in (data.train, data.dev)
            ]
        )
        queries = QueriesInBatches(network, chosen.device)
        with torch.no_grad():
            logits = queries(
                lambda part: network(data.records.batch(part)[0]), data.records, chosen
            )
        member = (torch.arange(len(chosen), device=chosen.device) < count).double()
        self.classifier = _classifier(inputs=logits.shape[1], seed=self.draws.key)
        self.classifier.to(chosen.device)
        _train(self.classifier, sorted_posteriors(logits.double()), member, generator)

    def release(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        z = logits.double()
        with torch.enable_grad():
            noisy = undecided(self.classifier, z)
        p, other = z.softmax(dim=1), noisy.softmax(dim=1)
        length = (other - p).abs().sum(dim=1)
        doubt, after = (of_half(self.classifier, one) for one in (z, noisy))
        drawn = [torch.rand((), generator=draw, dtype=torch.float64) for draw in self.draws(x)]
        added = torch.stack(drawn).to(z.device) * length < self.strength
        return torch.where((added & (after < doubt))[:, None], noisy, z).to(logits.dtype)


def _classifier(*, inputs: int, seed: bytes) -> nn.Module:
    network = nn.Sequential(
        nn.Linear(inputs, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
        nn.Flatten(0),
    )
    initialise(network, torch.Generator().manual_seed(int.from_bytes(seed, "big")))
    return network.double()


def _train(
    classifier: nn.Module, inputs: torch.Tensor, member: torch.Tensor, generator: torch.Generator
) -> None:
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1e-3, fused=True)
    every = torch.arange(len(inputs), device=inputs.device)
    with torch.enable_grad():
        for _ in range(TRAINING_STEPS // -(-len(every) // BATCH)):
            for rows in batches(every, BATCH, generator):
                optimizer.zero_grad(set_to_none=True)
                guess = classifier(inputs[rows])
                F.binary_cross_entropy_with_logits(guess, member[rows]).backward()
                optimizer.step()
    classifier.requires_grad_(False)


def sorted_posteriors(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=1).sort(dim=1).values


def of_half(classifier: nn.Module, logits: torch.Tensor) -> torch.Tensor:
    """How far from one half the classifier's posteriors (n,) are."""
    return (torch.sigmoid(classifier(sorted_posteriors(logits))) - 0.5).abs()


def undecided(classifier: nn.Module, logits: torch.Tensor) -> torch.Tensor:
    """Logits (n, C) with noise; those of records for which none is needed or found are as they
    were."""
    found = logits.clone()
    left = (of_half(classifier, logits) > UNDECIDED).nonzero().squeeze(1)
    for weight in DISTORTION_WEIGHTS:
        noisy, crossed = _descend(classifier, logits[left], weight)
        left = left[crossed]
        found[left] = noisy[crossed]
    return found


def _descend(
    classifier: nn.Module, start: torch.Tensor, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, C) after the steps of each record, and whether it has crossed (n,) bool."""
    posteriors, top = start.softmax(dim=1), start.argmax(dim=1)
    side = classifier(sorted_posteriors(start)).sign()
    of_top = F.one_hot(top, start.shape[1]).bool()
    z, rows = start.clone(), torch.arange(len(start), device=start.device)
    for _ in range(STEPS + 1):  # the last looks at what the last step came to
        if not len(rows):
            break
        now = z[rows].requires_grad_()
        p = now.softmax(dim=1)
        guess = classifier(p.sort(dim=1).values)
        beyond = now.masked_fill(of_top[rows], -torch.inf).amax(dim=1) - now[of_top[rows]]
        distortion = (p - posteriors[rows]).abs().sum(dim=1)
        loss = guess.abs() + ORDER_WEIGHT * F.relu(beyond) + weight * distortion
        (slope,) = torch.autograd.grad(loss.sum(), now)
        on = (guess * side[rows] > 0) | (now.argmax(dim=1) != top[rows])
        rows = rows[on]
        # where the gradient is 0, there is no way to go
        z[rows] = now.detach()[on] - STEP * F.normalize(slope[on], dim=1, eps=1e-300)
    crossed = torch.ones(len(start), dtype=torch.bool, device=start.device)
    crossed[rows] = False
    return z, crossed
