"""Places as cells of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def nearest_cells(places: Float[Tensor, "*batch 2"], grid: int) -> Float[Tensor, "*batch cells"]:
    """A map of G × G cells, row by row, whose mean place is the place: shared among its four nearest cells.

    Args:
        places: (column, row) in [−1, 1]; what lies nearer to the edge than a cell's middle counts as that middle.
    """
    place = ((places + 1) / 2 * grid - 0.5).clamp(0, grid - 1)
    cells = torch.arange(grid, device=places.device)
    column, row = (functional.relu(1 - (place[..., axis, None] - cells).abs()) for axis in (0, 1))
    return (row[..., :, None] * column[..., None, :]).flatten(-2)
