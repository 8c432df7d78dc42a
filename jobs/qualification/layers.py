"""Work as training and serving do it, which gives the same bits each time.

A layer of attention and a gated MLP, forward and backward, by products and a softmax: kernels of
attention add up in any order. And products of whole numbers, which are known: in the number type
of the layer, and in the codes that the pool serves in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from jobs.qualification import exact
from jobs.qualification.attention import composite
from jobs.qualification.bench import SERVE, TRAIN, Bench
from jobs.qualification.coverage import missing
from jobs.qualification.number_types import NumberType, number_types_of

_WIDTH, _LENGTH, _HEADS = 4096, 2048, 32
_OF_HOST = (64, 32, 4)


@dataclass(frozen=True, slots=True)
class SteadyWork:
    """A piece of work; `exact` is what it has to give, where that is known."""

    act: Callable[[], list[Tensor]]
    exact: tuple[Tensor, ...] = ()

    def __call__(self) -> list[Tensor]:
        """Do it, and return what it gives."""
        return self.act()


class Layer(nn.Module):
    """A layer of a language model: [batch, length, width] to the same."""

    def __init__(self, width: int, heads: int) -> None:
        """Make one of fresh weights."""
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.joined = nn.Linear(width, width, bias=False)
        self.gated = nn.Linear(width, 8 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Attend, and think."""
        batch, length, width = hidden.shape
        parts = self.attention(self.norms[0](hidden)).reshape(batch, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = composite(query, key, value).transpose(1, 2).reshape(batch, length, width)
        hidden = hidden + self.joined(attended)
        gate, up = self.gated(self.norms[1](hidden)).chunk(2, -1)
        output: Tensor = hidden + self.down(nn.functional.silu(gate) * up)
        return output


def works(
    bench: Bench, device: torch.device, roles: Sequence[str], formats: Sequence[str]
) -> list[SteadyWork]:
    """Return pieces of work in the number types of the roles, each of which repeats itself."""
    dtype = torch.bfloat16 if "bf16" in formats else torch.float32
    kinds = (
        kind
        for kind in number_types_of(formats)
        if kind.dtype is dtype or (kind.code and SERVE in roles)
    )
    layer = _of_layer(bench, device, dtype, backward=TRAIN in roles)
    return [layer, *(work for kind in kinds for work in _of_products(bench, device, kind))]


def _of_layer(
    bench: Bench, device: torch.device, dtype: torch.dtype, *, backward: bool
) -> SteadyWork:
    width, length, heads = (_WIDTH, _LENGTH, _HEADS) if bench.real else _OF_HOST
    torch.manual_seed(bench.ctx.seed)
    layer = Layer(width, heads).to(device, dtype)
    given = torch.randn(1, length, width).to(device, dtype).requires_grad_(backward)

    def work() -> list[Tensor]:
        if not backward:
            with torch.no_grad():
                return [layer(given)]
        out = layer(given)
        leaves = [given, *layer.parameters()]
        return [out.detach(), *torch.autograd.grad(out.float().square().mean(), leaves)]

    return SteadyWork(work)


@lru_cache(maxsize=1)
def _factors(size: int, seed: int) -> tuple[exact.Factors, Tensor]:
    """Return the factors of any number type, and their product, which takes the host a while."""
    factors = exact.paired(size, size, size, seed=seed)
    return factors, factors.product()


def _of_products(bench: Bench, device: torch.device, kind: NumberType) -> Iterator[SteadyWork]:
    """Yield the product of a number type, where the device has it: else nobody can soak in it."""
    multiply, size = kind.product, exact.LONGEST if bench.real else 64
    if multiply is None:
        return
    factors, product = _factors(size, bench.ctx.seed)
    bench.alive()
    lhs = factors.lhs.to(kind.dtype).to(device)
    rhs = factors.rhs.t().contiguous().to(kind.dtype).to(device).t()
    try:
        multiply(lhs, rhs)
    except (RuntimeError, ValueError) as error:
        if missing(error):
            return
        raise
    yield SteadyWork(lambda: [multiply(lhs, rhs)], (product.to(kind.result).to(device),))
