r"""Drawing a part anew and keeping the rest: the estimate of the data is replaced, where the data are known, by the data.

    x̂_0 ← m x̂_0 + (1 − m) x_known

A deterministic solver then carries the known part along x_t = α_t x_known + σ_t ε with the ε that it started from, and ends at it
exactly; the unknown part sees it at the right noise level all along. It is the replacement method (Song et al. 2021, appendix I.2; Lugmayr
et al. 2022, eq. 8) written as a denoiser, so that every solver has it. The result is not an exact sample of the conditional law.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.diffusion.predictions import check_prediction, convert

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Shaped

    from ornstein.diffusion.schedule import NoiseSchedule


class KnownData:
    """A denoiser made of one: its x̂_0 is what is known where `drawn` is 0. Wrap guidance, not the network inside it."""

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor, Any], Tensor],
        schedule: NoiseSchedule,
        prediction: str,
        known: Float[Tensor, "batch ..."],
        drawn: Float[Tensor, ...],
    ) -> None:
        """
        Args:
            prediction: what the denoiser predicts. known: the data, of x_t's shape; what lies under `drawn` = 1 does not matter.
            drawn: 1 where to draw and 0 where to keep, between for a soft edge; broadcasts against `known`.

        Raises:
            DataError: the shapes do not fit, or `drawn` leaves [0, 1].
        """
        check_prediction(prediction)
        if not bool(((drawn >= 0) & (drawn <= 1)).all()):
            raise DataError(f"a mask lies between 0 (keep) and 1 (draw), got {float(drawn.min())} … {float(drawn.max())}")
        try:
            drawn.expand_as(known)
        except RuntimeError as error:
            raise DataError(f"a mask must broadcast against the data {tuple(known.shape)}, got {tuple(drawn.shape)}") from error
        self.denoiser, self.schedule, self.prediction = denoiser, schedule, prediction
        # What is unknown may be anything, NaN too: it must not come back as 0 · NaN.
        self.known, self.drawn = torch.where(drawn == 1, torch.zeros_like(known), known), drawn

    def __call__(
        self, x_t: Float[Tensor, "batch ..."], t: Shaped[Tensor, " batch"], condition: Any = None
    ) -> Float[Tensor, "batch ..."]:
        """The prediction that belongs to the replaced x̂_0, of the kind that the denoiser makes.

        Raises:
            DataError: x_t has another shape than the known data.
        """
        if x_t.shape != self.known.shape:
            raise DataError(f"the known data have the shape {tuple(self.known.shape)}, x_t has {tuple(x_t.shape)}")
        angle = self.schedule.angle(t).to(x_t.dtype).to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1))
        alpha, sigma = angle.cos(), angle.sin()
        predicted = self.denoiser(x_t, t, condition).to(x_t.dtype)
        x_0 = convert(predicted, self.prediction, "sample", x_t, alpha, sigma)
        return convert(
            torch.lerp(self.known.to(x_t.dtype), x_0, self.drawn.to(x_t.dtype)), "sample", self.prediction, x_t, alpha, sigma
        )
