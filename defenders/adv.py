"""Adversarial regularization."""

import torch
from torch import nn
from torch.nn import functional as F

from base_model import Batch, Objective, TrainConfig
from datasets import batches
from models.layers import (
    dropout_generators,
    generator_state,
    initialise,
    seed_dropout,
    set_generator_state,
)
from models.perceptron import perceptron, posterior_and_class

ATTACK_STEPS = 7  # to one step of the classifier


class AdversarialRegularization(Objective):
    """Classify well while an attack that learns alongside takes members for non-members (Nasr et
    al. 2018, eq. 7).

    The attack (the perceptron of `nn_cls`) sees posterior and class, and learns to tell train
    records from dev records, a batch of each a step. The classifier then minimises
    cross-entropy - strength * (the attack's cross-entropy on the batch as members). As in the code
    of Yuan & Zhang, whose term is unbounded, the attack's own loss is multiplied by the strength
    too (Nasr et al. maximise the attack's gain, log h, and leave it out).
    """

    def setup(self, context):
        """Make the attack and its optimiser; the generator draws its weights, dropout and
        batches."""
        data, generator = context.data, context.generator
        self.records = data.records
        self.attack = perceptron(inputs=2 * data.records.num_cls)
        cpu = torch.Generator().manual_seed(
            int(torch.randint(2**31, (), generator=generator, device=generator.device))
        )
        initialise(self.attack, cpu)
        self.attack.to(data.train.device)
        seed_dropout(self.attack, seed=int(torch.randint(2**31, (), generator=cpu)))
        self.optimizer = TrainConfig(epochs=0).build_optimizer(self.attack.parameters())
        self.members, self.others = (
            _Endless(indices, context.batch_size, generator) for indices in (data.train, data.dev)
        )

    def state(self) -> dict:
        return {
            "attack": self.attack.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "dropout": [generator_state(draw) for draw in dropout_generators(self.attack)],
            "members": self.members.queue,
            "others": self.others.queue,
        }

    def set_state(self, state: dict) -> None:
        self.attack.load_state_dict(state["attack"])
        self.optimizer.load_state_dict(state["optimizer"])
        for draw, saved in zip(dropout_generators(self.attack), state["dropout"], strict=True):
            set_generator_state(draw, saved)
        for batches_left, queue in (
            (self.members, state["members"]),
            (self.others, state["others"]),
        ):
            batches_left.queue = [batch.to(batches_left.indices.device) for batch in queue]

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Take the attack's steps, then the classifier's loss against it as it now stands."""
        network.eval()
        self.attack.train()
        for _ in range(ATTACK_STEPS):
            self._attack_step(network)
        network.train()
        self.attack.eval()
        logits = network(batch.x).float()
        with torch.autocast(
            batch.x.device.type, enabled=False
        ):  # the attack works in float32, whatever the classifier does
            guess = self.attack(posterior_and_class(torch.softmax(logits, dim=1), batch.y))
            return F.cross_entropy(logits, batch.y) - self.strength * F.cross_entropy(
                guess, torch.ones_like(batch.y)
            )

    def _attack_step(self, network: nn.Module) -> None:
        members, others = next(self.members), next(self.others)
        x, y = self.records.batch(torch.cat([members, others]))
        with torch.no_grad():
            features = posterior_and_class(torch.softmax(network(x).float(), dim=1), y)
        is_member = torch.zeros_like(y)
        is_member[: len(members)] = 1
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, enabled=False):
            (self.strength * F.cross_entropy(self.attack(features), is_member)).backward()
        self.optimizer.step()


class _Endless:
    """Batches of `indices`, epoch after epoch."""

    def __init__(self, indices: torch.Tensor, size: int, generator: torch.Generator):
        self.indices, self.size, self.generator = indices, size, generator
        self.queue: list[torch.Tensor] = []

    def __next__(self) -> torch.Tensor:
        if not self.queue:
            self.queue = list(batches(self.indices, self.size, self.generator))
        return self.queue.pop(0)
