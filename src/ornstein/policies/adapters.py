"""Low-rank adapters beside the layers of a model that stays as it is (Hu et al. 2022, "LoRA"), by `peft`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from ornstein.core.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def add_adapters(network: nn.Module, parts: Sequence[str], rank: int) -> None:
    """Put one of this rank beside every linear layer of `network`'s parts, in place. They change nothing before they have learnt: half of each begins at
    zero, the other is drawn from torch's global generator. Of all the network's parameters theirs alone then learn.

    Args:
        parts: names of sub-modules ("blocks").

    Raises:
        DataError: a rank below 1, or no linear layer. MissingDependencyError: peft is not installed.
    """
    if rank < 1:
        raise DataError(f"an adapter's rank is at least 1, got {rank}")
    layers = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(tuple(f"{part}." for part in parts))
    ]
    if not layers:
        raise DataError(f"there is no linear layer in {', '.join(parts)} to put an adapter beside")
    with _peft():
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers), network)


def merge_adapters(network: nn.Module) -> None:
    """Let each layer be what it is together with its adapter, in place: the same function to rounding, and as fast as before."""
    with _peft():
        from peft.tuners.lora import LoraLayer

        for name, layer in list(network.named_modules()):
            if isinstance(layer, LoraLayer):
                layer.merge(safe_merge=True)
                network.set_submodule(name, layer.get_base_layer())


@contextmanager
def _peft() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise MissingDependencyError("adapters of low rank need peft: pip install 'ornstein[vlm]'") from error
