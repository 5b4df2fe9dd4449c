"""Attention and the MLP beside it. Shapes: B batch, N queries, L keys, D width, H heads."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.errors import DataError


class Attention(nn.Module):
    """Multi-head attention, written out: at 64 tokens torch's fused CPU kernel is slower (its backward pass above all)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise DataError(f"the width {width} must be divisible by the number of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, context_BLD: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """(B, N, D) attends to (B, L, D).

        Args:
            mask: bool, True where it may look. bias: added to the scores. Both broadcastable to (B, H, N, L).
        """
        return self.attend(x_BND, *self.keys_values(context_BLD), mask, bias)

    def keys_values(self, context_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """What `attend` reads, (B, H, L, D/H) each: worked out once for a context that many queries ask."""
        key_BHLD, value_BHLD = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.key_value(context_BLD).chunk(2, -1)
        )
        return key_BHLD, value_BHLD

    def attend(
        self, x_BND: Tensor, key_BHLD: Tensor, value_BHLD: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """`forward` from keys and values."""
        query_BHND = self.query(x_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores_BHNL = query_BHND @ key_BHLD.transpose(-1, -2) * (x_BND.shape[-1] // self.heads) ** -0.5
        if bias is not None:
            scores_BHNL = scores_BHNL + bias
        if mask is not None:
            scores_BHNL = scores_BHNL.masked_fill(~mask, -1e4)
        attended_BHND = scores_BHNL.softmax(-1).to(value_BHLD.dtype) @ value_BHLD
        return self.out(attended_BHND.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """D → 4D → D with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))
