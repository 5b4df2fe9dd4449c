"""Action heads by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ornstein.actions.bins import UniformBins
from ornstein.actions.fast import FastTokenizer
from ornstein.actions.heads import ActionHead, MixtureHead, RegressionHead
from ornstein.actions.noise_heads import DiffusionHead, FlowHead
from ornstein.actions.quantiles import QuantileBins
from ornstein.actions.token_heads import BinsHead, FastHead, bins_from_json
from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract

_KINDS: dict[str, Callable[..., ActionHead]] = {
    "bins": BinsHead,
    "fast": FastHead,
    "regression": RegressionHead,
    "mixture": MixtureHead,
    "diffusion": DiffusionHead,
    "flow": FlowHead,
}
HeadName = Literal[
    "uniform-bins",
    "uniform-bins-autoregressive",
    "quantile-bins",
    "fast",
    "regression-l1",
    "regression-l2",
    "mixture",
    "diffusion",
    "flow",
]
#: Ready to be compared: (kind, settings) by name.
HEADS: dict[HeadName, tuple[str, dict[str, Any]]] = {
    "uniform-bins": ("bins", {"decoding": "parallel"}),
    "uniform-bins-autoregressive": ("bins", {"decoding": "autoregressive"}),
    "quantile-bins": ("bins", {"decoding": "parallel"}),
    "fast": ("fast", {}),
    "regression-l1": ("regression", {"norm": 1}),
    "regression-l2": ("regression", {"norm": 2}),
    "mixture": ("mixture", {}),
    "diffusion": ("diffusion", {}),
    "flow": ("flow", {}),
}


def describe_head(
    name: HeadName, chunks: NDArray[np.floating], contract: EmbodimentContract, *, num_bins: int = 256
) -> dict[str, Any]:
    """Plain data for a checkpoint's configuration, with what had to be fitted to the data.

    Args:
        name: one of `HEADS`. chunks: of the training data, (N, H, D). num_bins: of heads of bins.

    Raises:
        UnknownNameError: no such head. DataError: what is fitted does not fit the chunks.
    """
    if name not in HEADS:
        raise unknown_name("action head", name, HEADS)
    if chunks.ndim != 3:
        raise DataError(f"chunks are (N, H, D), got {chunks.shape}")
    kind, settings = HEADS[name]
    described = {"kind": kind, "length": int(chunks.shape[1]), **settings}
    if name == "quantile-bins":
        fitted = QuantileBins.fit(chunks.reshape(-1, chunks.shape[-1]), contract, num_bins)
        described["bins"] = {"edges": [list(one) for one in fitted.edges]}
    elif kind == "bins":
        described["bins"] = {"num_bins": UniformBins.from_contract(contract, num_bins).num_bins}
    elif kind == "fast":
        described["tokenizer"] = FastTokenizer.fit(chunks, contract).to_json()
    return described


def build_head(description: dict[str, Any], context_size: int, contract: EmbodimentContract) -> ActionHead:
    """The head that a checkpoint's configuration describes, with fresh weights.

    Raises:
        DataError: a key is missing or unknown, or a value is impossible. UnknownNameError: no such kind.
    """
    settings = dict(description)
    try:
        kind, length = str(settings.pop("kind")), int(settings.pop("length"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"an action head needs `kind` and `length`, got {sorted(description)}") from error
    if kind not in _KINDS:
        raise unknown_name("kind of action head", kind, _KINDS)
    if "bins" in settings:
        settings["bins"] = bins_from_json(settings["bins"], contract)
    if "tokenizer" in settings:
        settings["tokenizer"] = FastTokenizer.from_json(settings["tokenizer"])
    try:
        return _KINDS[kind](context_size, length, contract, **settings)
    except TypeError as error:
        raise DataError(f"settings of an action head of kind {kind} do not fit: {error}") from error
