"""What a computation costs in arithmetic, counted as it runs: the unit in which unlike models get one budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from collections.abc import Callable


def count_flops(compute: Callable[[], Any]) -> int:
    """Floating point operations of all matrix products and convolutions in `compute`, backward passes included.

    A multiplication and an addition are two. Activations, norms and the optimiser are not counted. torch's own counter walks modules,
    which a gradient inside the loss (a GAN's penalty) breaks; this one sees operations only.
    """
    counter = _Counter()
    with counter:
        compute()
    return counter.total


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out
