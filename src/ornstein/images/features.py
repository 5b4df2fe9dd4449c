"""Pictures as points: one frozen network, one stated way to its size, and a set of vectors that knows how it came about.

A distance between two sets of pictures is a distance between their features. It means nothing unless both sets went through the same
weights, the same resizing and the same range of pixel values: resizing alone moves a Fréchet distance by several units (Parmar et al.
2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation"). So the three are part of the set, and sets that differ in one
are refused wherever they meet.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ornstein.images.judge import EmojiJudge
    from ornstein.networks.classifier import Classifier

_BATCH = 64


@dataclass(frozen=True)
class Features:
    """n pictures as points.

    Args:
        values: float64 (n, d), all finite.
        extractor: name and fingerprint of the network that made them.
        resize: what was done to bring the pictures to its size. range: the values that its pixels take.
    """

    values: NDArray[np.float64]
    extractor: str
    resize: str
    range: str

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float64)
        if values.ndim != 2 or 0 in values.shape:
            raise DataError(f"features are (pictures, numbers of each), got shape {values.shape}")
        if not np.isfinite(values).all():
            raise DataError(
                f"{int((~np.isfinite(values)).any(1).sum())} of {len(values)} pictures have features that are not finite"
            )
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)


def require_comparable(*sets: Features, same_n: bool = False) -> None:
    """The sets are points of one space.

    Args:
        same_n: they must have equally many points as well.

    Raises:
        DataError: names what differs.
    """
    first = sets[0]
    for other in sets[1:]:
        for what in ("extractor", "resize", "range"):
            if getattr(first, what) != getattr(other, what):
                raise DataError(
                    f"features with another {what} cannot be compared: {getattr(first, what)}, and {getattr(other, what)}"
                )
        if first.values.shape[1] != other.values.shape[1]:
            raise DataError(f"features of {first.values.shape[1]} and of {other.values.shape[1]} numbers cannot be compared")
        if same_n and len(first) != len(other):
            raise DataError(
                f"figures of {len(first)} and of {len(other)} pictures are not compared, since these distances depend on the number:"
                f" take {min(len(first), len(other))} of each"
            )


class Extractor:
    """A frozen network that turns pictures into points.

    Args:
        name: what to call it in reports; the fingerprint of its weights is added.
        network: takes float32 (batch, 3, side, side), returns (batch, d). It is put into evaluation mode. What a network wants beyond a
            range (ImageNet's mean and deviation, say) belongs into it: `nn.Sequential(Normalise(), network)`.
        side: the height and width that it takes.
        low, high: what the pixel values 0 and 255 become.

    Raises:
        DataError: there is no such side or range.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        side: int,
        low: float = -1.0,
        high: float = 1.0,
        device: str | torch.device = "cpu",
    ) -> None:
        if side < 1 or not (np.isfinite([low, high]).all() and low < high):
            raise DataError(f"an extractor takes a side of at least 1 and low < high, got {side}, {low} and {high}")
        self.network = network.to(device).eval()
        self.side, self.low, self.high = side, low, high
        self.device = torch.device(device)
        self.name = f"{name}@{_fingerprint(network)}"

    @classmethod
    def of_judge(cls, judge: EmojiJudge) -> Extractor:
        """The shipped classifier's pooled activations, 384 numbers: it was trained on clean scenes and never saw a generated picture."""
        return cls("emoji-classifier", _JudgeFeatures(judge.network), side=128, device=judge.device)

    def resizing(self, height: int, width: int) -> str:
        """How pictures of this size are brought to the network's: what `Features.resize` says.

        Raises:
            DataError: they are not square. Cropping or stretching them would be another choice that figures depend on.
        """
        if height != width:
            raise DataError(f"pictures are square here, got {height} × {width}: crop them first, all sets in the same way")
        if self.side % height == 0:
            return (
                f"{height} px, each pixel repeated {self.side // height} times"
                if self.side != height
                else f"{height} px, as they are"
            )
        return f"{height} px, bicubic with antialiasing to {self.side} px"

    def prepare(self, pictures: NDArray[np.uint8]) -> Tensor:
        """RGB uint8 (n, H, W, 3) as the network takes them: float32 (n, 3, side, side) in low … high."""
        if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
            raise DataError(f"pictures must be uint8 (batch, height, width, 3), got {pictures.dtype} {pictures.shape}")
        self.resizing(*pictures.shape[1:3])
        x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).to(self.device, torch.float32)
        if self.side % x.shape[-1] == 0:
            times = self.side // x.shape[-1]
            x = x.repeat_interleave(times, 2).repeat_interleave(times, 3)
        else:
            # Bicubic overshoots at edges; a picture has no value beyond 0 and 255.
            x = functional.interpolate(x, size=(self.side, self.side), mode="bicubic", antialias=True, align_corners=False).clamp(
                0, 255
            )
        return x / 255 * (self.high - self.low) + self.low

    @torch.inference_mode()
    def extract(self, pictures: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]) -> Features:
        """The features of RGB uint8 (n, H, W, 3), or of batches of such, one batch in memory at a time.

        Raises:
            DataError: no picture, pictures of other shapes or of several sizes, or features that are not (n, d) or not finite.
        """
        size: tuple[int, int] | None = None
        parts: list[NDArray[np.float64]] = []
        for batch in _batches(pictures):
            x = self.prepare(batch)
            if size is not None and batch.shape[1:3] != size:
                raise DataError(
                    f"pictures of one set have one size, got {size[0]} × {size[1]} and {batch.shape[1]} × {batch.shape[2]}"
                )
            size = (batch.shape[1], batch.shape[2])
            found = self.network(x)
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x):
                came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise DataError(
                    f"the network of {self.name} must return ({len(x)}, numbers of each) for {len(x)} pictures, got {came}"
                )
            parts.append(found.double().cpu().numpy())
        if size is None:
            raise DataError("there is no picture to extract features from")
        return Features(np.concatenate(parts), self.name, self.resizing(*size), f"{self.low:g} to {self.high:g}")


class _JudgeFeatures(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier.features(pixels)


def _batches(pictures: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    whole = [pictures] if isinstance(pictures, np.ndarray) else pictures
    return itertools.chain.from_iterable((one[k : k + _BATCH] for k in range(0, len(one), _BATCH)) for one in whole)


def _fingerprint(network: nn.Module) -> str:
    """The first twelve digits of the SHA-256 over every weight's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
