r"""What a denoiser may predict, and how one follows from another.

At fixed x_t = α x_0 + σ ε (α = √α̅_t, σ = √(1 − α̅_t), α² + σ² = 1) each of the four is an affine function of each other:

    epsilon       ε                                          Ho et al. 2020
    sample        x_0
    v_prediction  v = α ε − σ x_0                            Salimans & Ho 2022, appendix D
    score         ∇ log p(x_t) = −ε / σ                      Song et al. 2021; as an estimate, with E[ε | x_t]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Prediction = Literal["epsilon", "sample", "v_prediction", "score"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)

# The one table: each prediction p, with x_t, α and σ, as the pair (x_0, ε).
_PAIR: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "epsilon": lambda p, x, a, s: ((x - s * p) / a, p),
    "sample": lambda p, x, a, s: (p, (x - a * p) / s),
    "v_prediction": lambda p, x, a, s: (a * x - s * p, s * x + a * p),
    "score": lambda p, x, a, s: ((x + s * s * p) / a, -s * p),
}
# … and back: the prediction from (x_0, ε), α and σ.
_FROM_PAIR: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda x_0, eps, a, s: eps,
    "sample": lambda x_0, eps, a, s: x_0,
    "v_prediction": lambda x_0, eps, a, s: a * eps - s * x_0,
    "score": lambda x_0, eps, a, s: -eps / s,
}
# Which of α and σ each row divides by.
_NEEDS_SIGNAL = {"epsilon", "score"}
_NEEDS_NOISE = {"sample"}


def check_prediction(name: str) -> None:
    """Refuse an unknown kind of prediction.

    Raises:
        UnknownNameError: with the four that exist.
    """
    if name not in PREDICTIONS:
        raise unknown_name("prediction", name, PREDICTIONS)


def to_pair(prediction: Tensor, kind: Prediction, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x_0, ε) that a prediction means at x_t. α and σ broadcast against x_t.

    Raises:
        DataError: α = 0 for "epsilon" or "score", or σ = 0 for "sample": the other cannot be told from it there.
    """
    check_prediction(kind)
    if kind in _NEEDS_SIGNAL and bool((alpha == 0).any()):
        raise DataError(
            f"x_0 cannot be told from {kind!r} where no signal is left (alpha = 0): predict 'sample' or 'v_prediction'"
        )
    if kind in _NEEDS_NOISE and bool((sigma == 0).any()):
        raise DataError("epsilon cannot be told from 'sample' where there is no noise (sigma = 0, t = 0)")
    return _PAIR[kind](prediction, x_t, alpha, sigma)


def convert(prediction: Tensor, source: Prediction, target: Prediction, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """A prediction of kind `source` as one of kind `target`; all twelve directions, exact up to rounding.

    Raises:
        DataError: the conversion divides by α = 0 or σ = 0.
    """
    check_prediction(target)
    if source == target:
        check_prediction(source)
        return prediction
    x_0, eps = to_pair(prediction, source, x_t, alpha, sigma)
    if target == "score" and bool((sigma == 0).any()):
        raise DataError("there is no score where there is no noise (sigma = 0, t = 0)")
    return _FROM_PAIR[target](x_0, eps, alpha, sigma)


def from_pair(x_0: Tensor, eps: Tensor, kind: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The prediction of that kind that the true (x_0, ε) ask for: a training target."""
    check_prediction(kind)
    return _FROM_PAIR[kind](x_0, eps, alpha, sigma)
