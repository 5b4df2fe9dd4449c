r"""What a denoiser may predict, and how one follows from another.

At fixed x_t = α x_0 + σ ε (α = √α̅_t, σ = √(1 − α̅_t), so α² + σ² = 1) the four are

    epsilon       ε                                          Ho et al. 2020
    sample        x_0
    v_prediction  v = α ε − σ x_0                            Salimans & Ho 2022, appendix D
    score         ∇ log q(x_t | x_0) = −ε / σ                Song et al. 2021; its mean given x_t is ∇ log p_t(x_t)

and each is an affine function of each other, with coefficients that depend on the time step alone. So an expectation, a
difference weighted to one (guidance) or a linear solver means the same in all four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from torch import Tensor

from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

Prediction = Literal["epsilon", "sample", "v_prediction", "score"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


class Coefficients(NamedTuple):
    """target = of_x · x_t + of_prediction · source. Numbers, or tensors that broadcast against x_t."""

    of_x: Any
    of_prediction: Any


class _Conversion(NamedTuple):
    divides_by: Literal["alpha", "sigma"] | None
    coefficients: Callable[[Any, Any], tuple[Any, Any]]  # of α and σ, both numbers or both tensors


# The one table, (source, target) → how. Each row is x_t = α x_0 + σ ε and the definitions above, solved for the target.
_TABLE: dict[tuple[str, str], _Conversion] = {
    ("epsilon", "sample"): _Conversion("alpha", lambda a, s: (1 / a, -s / a)),
    ("epsilon", "v_prediction"): _Conversion("alpha", lambda a, s: (-s / a, 1 / a)),
    ("epsilon", "score"): _Conversion("sigma", lambda a, s: (0.0, -1 / s)),
    ("sample", "epsilon"): _Conversion("sigma", lambda a, s: (1 / s, -a / s)),
    ("sample", "v_prediction"): _Conversion("sigma", lambda a, s: (a / s, -1 / s)),
    ("sample", "score"): _Conversion("sigma", lambda a, s: (-1 / s**2, a / s**2)),
    ("v_prediction", "epsilon"): _Conversion(None, lambda a, s: (s, a)),
    ("v_prediction", "sample"): _Conversion(None, lambda a, s: (a, -s)),
    ("v_prediction", "score"): _Conversion("sigma", lambda a, s: (-1.0, -a / s)),
    ("score", "epsilon"): _Conversion(None, lambda a, s: (0.0, -s)),
    ("score", "sample"): _Conversion("alpha", lambda a, s: (1 / a, s**2 / a)),
    ("score", "v_prediction"): _Conversion("alpha", lambda a, s: (-s / a, -s / a)),
}
_LOST = {
    "alpha": "no signal is left there (alpha = 0): let the denoiser predict 'sample' or 'v_prediction'",
    "sigma": "there is no noise there (sigma = 0, t = 0): start at t = 1",
}


def check_prediction(name: str) -> Prediction:
    """The name of a kind of prediction, checked.

    Raises:
        UnknownNameError: with the four that exist.
    """
    if name not in PREDICTIONS:
        raise unknown_name("prediction", name, PREDICTIONS)
    return name


def coefficients(source: str, target: str, alpha: float | Tensor, sigma: float | Tensor) -> Coefficients:
    """How `target` follows from x_t and a prediction of kind `source`: see `Coefficients`.

    Args:
        alpha, sigma: √α̅ and √(1 − α̅), both numbers or both tensors.

    Raises:
        DataError: the conversion divides by α or σ, and it is 0. UnknownNameError: no such prediction.
    """
    check_prediction(source)
    check_prediction(target)
    if source == target:
        return Coefficients(0.0, 1.0)
    conversion = _TABLE[source, target]
    if conversion.divides_by is not None:
        divisor = alpha if conversion.divides_by == "alpha" else sigma
        if bool((divisor == 0).any()) if isinstance(divisor, Tensor) else divisor == 0:
            raise DataError(f"{target!r} cannot be told from {source!r} where {_LOST[conversion.divides_by]}")
    return Coefficients(*conversion.coefficients(alpha, sigma))


def convert(
    prediction: Float[Tensor, "*shape"],
    source: str,
    target: str,
    x_t: Float[Tensor, "*shape"],
    alpha: float | Tensor,
    sigma: float | Tensor,
) -> Float[Tensor, "*shape"]:
    """A prediction of kind `source` as one of kind `target`; all twelve directions, exact up to rounding.

    Args:
        alpha, sigma: √α̅ and √(1 − α̅) at x_t's time step, numbers or tensors that broadcast against it.

    Raises:
        DataError: the conversion divides by α or σ, and it is 0; or the shapes differ. UnknownNameError: no such prediction.
    """
    if prediction.shape != x_t.shape:
        raise DataError(f"a prediction has x_t's shape {tuple(x_t.shape)}, got {tuple(prediction.shape)}")
    of_x, of_prediction = coefficients(source, target, alpha, sigma)
    if source == target:
        return prediction
    return of_x * x_t + of_prediction * prediction


def from_pair(
    x_0: Float[Tensor, "*shape"], eps: Float[Tensor, "*shape"], kind: str, alpha: Tensor, sigma: Tensor
) -> Float[Tensor, "*shape"]:
    """The prediction of that kind that the true (x_0, ε) ask for, by its definition: a training target."""
    match check_prediction(kind):
        case "epsilon":
            return eps
        case "sample":
            return x_0
        case "v_prediction":
            return alpha * eps - sigma * x_0
        case "score":
            if bool((sigma == 0).any()):
                raise DataError(f"there is no score where {_LOST['sigma']}")
            return -eps / sigma
