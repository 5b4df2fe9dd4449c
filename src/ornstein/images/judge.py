"""The frozen judge: what does a picture show? It never saw a generated picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ornstein.core.errors import CheckpointError, DataError
from ornstein.data.scenes import BACKGROUNDS
from ornstein.images.autoencoding import to_tensor
from ornstein.networks.classifier import Classifier, ClassifierConfig
from ornstein.networks.weight_files import load_strictly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.core.checkpoint import Checkpoint

_BATCH = 64
_BORDER = 6


@dataclass(frozen=True)
class Verdict:
    """Names in order of belief for one picture (the first is the judge's answer), with the probability of the first."""

    ranking: tuple[str, ...]
    probability: float


class EmojiJudge:
    """Names the drawing in a picture among all names of the vocabulary, and the colour of its background."""

    def __init__(self, network: Classifier, names: Sequence[str], device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.names = tuple(names)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> EmojiJudge:
        """Load strictly.

        Raises:
            CheckpointError: the configuration or the weights do not fit.
        """
        config = dict(checkpoint.config)
        names = config.pop("names", None)
        if not isinstance(names, list) or len(names) != config.get("num_classes"):
            raise CheckpointError(f"{checkpoint.path} does not list one name for each of its classes")
        try:
            config["channels"] = tuple(config["channels"])
            network = Classifier(ClassifierConfig(**config))
        except (KeyError, TypeError, DataError) as error:
            raise CheckpointError(f"the configuration of {checkpoint.path} does not fit a classifier: {error}") from error
        return cls(load_strictly(network, checkpoint), names, device)

    @torch.inference_mode()
    def verdicts(self, pictures: NDArray[np.uint8], top: int = 5) -> list[Verdict]:
        """What each picture shows, for RGB uint8 (N, H, W, 3) with sides divisible by 16."""
        result = []
        for start in range(0, len(pictures), _BATCH):
            probabilities = self.network(to_tensor(pictures[start : start + _BATCH]).to(self.device)).softmax(-1)
            best = probabilities.topk(top, dim=-1)
            for values, indices in zip(best.values, best.indices, strict=True):
                result.append(Verdict(tuple(self.names[k] for k in indices.tolist()), float(values[0])))
        return result

    @torch.inference_mode()
    def first_names(self, features: NDArray[np.float64]) -> list[str]:
        """The judge's answer from its own pooled activations (n, d), where these are there already (`Extractor.of_judge`)."""
        head = self.network.head
        if features.ndim != 2 or features.shape[1] != head.in_features:
            raise DataError(f"the judge reads names from (n, {head.in_features}) activations of its own, got {features.shape}")
        best = head(torch.from_numpy(features).to(self.device, head.weight.dtype)).argmax(-1)
        return [self.names[k] for k in best.tolist()]

    def backgrounds(self, pictures: NDArray[np.uint8]) -> list[str]:
        """The named background colour nearest to the median colour of each picture's border."""
        palette = np.array(list(BACKGROUNDS.values()), dtype=np.float64)
        border = np.ones(pictures.shape[1:3], dtype=bool)
        border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
        medians = np.median(pictures[:, border], axis=1)
        nearest = ((medians[:, None] - palette[None]) ** 2).sum(-1).argmin(-1)
        return [list(BACKGROUNDS)[k] for k in nearest]
