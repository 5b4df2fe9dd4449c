"""What a computation costs in arithmetic and in memory, counted as it runs: units in which unlike models are compared."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
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


def peak_bytes(compute: Callable[[], Any]) -> int:
    """The most bytes that tensors made in `compute` hold at one time, what is kept for a backward pass included.

    What was there before (weights, data) is not counted, nor what an operation takes for itself meanwhile: unlike the memory of a
    process this is the same on every machine, and is not hidden under what Python and torch take.
    """
    counter = _Memory()
    with counter:
        compute()
    return counter.peak


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation once it has run, down to those that do the work: under inference mode torch hands over whole layers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            out = func.decompose(*args, **kwargs)
        if out is NotImplemented:
            out = func(*args, **kwargs)
            self.see(func, args, kwargs, out)
        return out

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        raise NotImplementedError


class _Memory(_Watch):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self._known: set[int] = set()

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        given = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for made in tree_iter(out):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:  # a view holds nothing of its own
                self._take(made)

    def _take(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)

        def free() -> None:
            self._known.discard(key)
            self.held -= size

        weakref.finalize(storage, free)


class _Counter(_Watch):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
