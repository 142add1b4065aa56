"""SAMIA's network: self-attention over the classes of a record's posterior (Yuan & Zhang 2022,
section 5); and one over the releases of a model."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from models.layers import Dropout, Generator, dropout_generators
from models.slices import in_slices


class SelfAttentionAttack(nn.Module):
    """Each class is a token of three numbers: posterior, sensitivity, one-hot label.

    BatchNorm over the 3C inputs, linear 3 -> width, GELU, post-norm encoder layers without a
    position code, then all C tokens flattened to width ReLU units and the logits of (non-member,
    member).
    """

    def __init__(
        self,
        *,
        num_cls: int,
        width: int = 64,
        heads: int = 4,
        layers: int = 3,
        feedforward: int = 128,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * num_cls)
        self.embed = nn.Linear(3, width)
        # the attention of all layers starts alike in the authors' network, as
        # nn.TransformerEncoder copies its layer
        first = EncoderLayer(width, heads, feedforward, dropout)
        others = [
            EncoderLayer(width, heads, feedforward, dropout, like=first) for _ in range(layers - 1)
        ]
        self.encoder = nn.ModuleList([first, *others])
        self.hidden = nn.Linear(num_cls * width, width)
        self.out = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 3) to (B, 2)."""
        tokens = self.norm(x.flatten(1)).view(x.shape)  # the only place where records meet
        if self.training and x.device.type == "cpu":
            return in_slices(self.of_tokens, tokens, list(self.parameters()), self.generator)
        return self.of_tokens(tokens)

    @property
    def generator(self) -> Generator:
        """What the dropout of all layers draws from."""
        (generator,) = dropout_generators(self)
        return generator

    def of_tokens(self, tokens: torch.Tensor, generator: Generator | None = None) -> torch.Tensor:
        """(B, C, 3) to (B, 2), each record by itself; dropout draws from `generator` if one is
        given."""
        x = F.gelu(self.embed(tokens))  # (B, C, width)
        for layer in self.encoder:
            x = layer(x, generator)
        return self.out(F.relu(self.hidden(x.flatten(1))))


class TrajectoryAttack(nn.Module):
    """Self-attention over the releases of a model (ours): a token each, of one number of the record
    in that release, which release it is, and the record's class.

    BatchNorm over the K numbers, which standardises them; a linear map of the number and of the
    one-hot release (so a learnt position) plus one of the one-hot class; a post-norm encoder layer;
    all tokens flattened to the logits of (non-member, member).
    """

    def __init__(
        self,
        *,
        releases: int,
        num_cls: int,
        width: int = 16,
        heads: int = 2,
        feedforward: int = 32,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.releases = releases
        self.norm = nn.BatchNorm1d(releases)
        self.embed = nn.Linear(1 + releases, width)
        self.of_class = nn.Linear(num_cls, width, bias=False)
        self.encoder = EncoderLayer(width, heads, feedforward, dropout)
        self.out = nn.Linear(releases * width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K + C), K numbers and the one-hot class, to (B, 2)."""
        numbers, one_hot = x.tensor_split([self.releases], dim=1)
        numbers = self.norm(numbers)  # the only place where records meet
        positions = torch.eye(self.releases, device=x.device).expand(len(x), -1, -1)
        tokens = self.embed(torch.cat([numbers[:, :, None], positions], dim=2))  # (B, K, width)
        tokens = tokens + self.of_class(one_hot)[:, None]
        return self.out(self.encoder(tokens).flatten(1))


class EncoderLayer(nn.Module):
    """A post-norm encoder layer with GELU (Vaswani et al. 2017): torch's TransformerEncoderLayer,
    but with dropout that draws from its own generator.

    Args:
        like: a layer with whose attention weights this one starts.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        dropout: float,
        *,
        like: "EncoderLayer | None" = None,
    ):
        super().__init__()
        self.heads, self._like = heads, (like,)  # in a tuple, as it is no part of this layer
        self.in_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_bias = nn.Parameter(torch.empty(3 * width))
        self.out_weight = nn.Parameter(torch.empty(width, width))
        self.out_bias = nn.Parameter(torch.empty(width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.dropout = Dropout(dropout)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """The attention as nn.MultiheadAttention starts: Xavier-uniform inward, nn.Linear's default
        outward, zero bias."""
        (like,) = self._like
        if like is None:
            nn.init.xavier_uniform_(self.in_weight, generator=generator)
            nn.init.kaiming_uniform_(self.out_weight, a=math.sqrt(5), generator=generator)
        else:
            self.in_weight.copy_(like.in_weight)
            self.out_weight.copy_(like.out_weight)
        nn.init.zeros_(self.in_bias)
        nn.init.zeros_(self.out_bias)

    def forward(self, x: torch.Tensor, generator: Generator | None = None) -> torch.Tensor:
        """(B, L, width) to the same; dropout draws from `generator` if one is given."""
        x = self.norm1(x + self.dropout(self.attention(x, generator), generator))
        hidden = self.dropout(F.gelu(self.linear1(x)), generator)
        return self.norm2(x + self.dropout(self.linear2(hidden), generator))

    def attention(self, x: torch.Tensor, generator: Generator | None = None) -> torch.Tensor:
        """(B, L, width) to the same: several heads, dropout on their weights."""
        B, L, width = x.shape
        qkv = F.linear(x, self.in_weight, self.in_bias)
        qkv = qkv.view(B, L, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, width / heads)
        if self.training and self.dropout.p:
            # torch's attention would draw from the global generator
            weights = torch.softmax(q / math.sqrt(q.shape[3]) @ k.transpose(2, 3), dim=3)
            mixed = self.dropout(weights, generator) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return F.linear(mixed.transpose(1, 2).reshape(B, L, width), self.out_weight, self.out_bias)
