"""A vision-language model that answers: questions in text, answers in text, one picture at a time or many questions about one.

Texts read "Q: where is the lion? A: <x12> <y40>", as RT-2's do (Zitkovich et al. 2023, Appendix A).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.errors import CheckpointError, DataError
from ornstein.language import TextTokenizer
from ornstein.networks.transformers_backbone import TransformersConfig, TransformersNetwork
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.networks.weight_files import load_strictly
from ornstein.policies.looking import PlaceTokens, looking_loss
from ornstein.policies.texts import TextTensors, question_tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.networks.speaking import SpeakingNetwork


class Answer(NamedTuple):
    """text: without its end. log_probability: of its tokens together, given what came before them, over the tokens that were allowed. whole:
    whether it came to an end by itself."""

    text: str
    log_probability: float
    whole: bool


def answer_loss(
    network: SpeakingNetwork, seen: Tensor, texts: TextTensors, known: PlaceTokens | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy a token of the answers, with `looking_loss`, and figures to watch: the cross-entropy, and the share of tokens that would be chosen.

    Args:
        seen: of `SpeakingNetwork.see`; as many texts about each picture, in the pictures' order. known: the tokens of places; without them nothing is
            said of where to look.
    """
    wanted = texts.answered[:, 1:]
    read, looks = network.read_and_look(seen, texts.tokens[:, :-1], texts.answered[:, :-1])
    logits = network.say(read[wanted])
    right = texts.tokens[:, 1:][wanted]
    answers = functional.cross_entropy(logits, right)
    log = {"answers": answers.detach(), "right": (logits.argmax(-1) == right).float().mean().detach()}
    if known is None or looks is None:
        return answers, log
    looking, more = looking_loss(looks, texts, known)
    return answers + looking, {**log, **more}


class VisionLanguageModel(nn.Module):
    """A network with the tokenizer that it was trained with."""

    def __init__(self, network: SpeakingNetwork, tokenizer: TextTokenizer) -> None:
        """
        Raises:
            CheckpointError: the network says another number of tokens than the tokenizer has.
        """
        super().__init__()
        if network.config.vocabulary != tokenizer.size:
            raise CheckpointError(
                f"the network says {network.config.vocabulary} different tokens, its tokenizer has {tokenizer.size}: they belong to different models"
            )
        self.network, self.tokenizer = network, tokenizer

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> VisionLanguageModel:
        """The model behind a checkpoint of this kind.

        Raises:
            CheckpointError: the configuration or the weights do not fit.
        """
        config = dict(checkpoint.config)
        try:
            tokenizer = TextTokenizer.from_json(config.pop("tokenizer"))
            network = speaking_network(config)
        except (KeyError, TypeError, DataError) as error:
            raise CheckpointError(
                f"the configuration of {checkpoint.path} does not fit a vision-language model: {error}"
            ) from error
        load_strictly(network, checkpoint)
        return cls(network.eval().requires_grad_(requires_grad=False).to(device), tokenizer)

    @classmethod
    def from_transformers(cls, folder: str | Path) -> VisionLanguageModel:
        """Another's model, as transformers saved it, with a token for each place's column and row.

        Args:
            folder: with config.json, weights and a fast tokenizer.

        Raises:
            CheckpointError: something of it is missing, or does not fit. UnknownNameError: another family than `FAMILIES`. DataError: see
                `from_transformers`. MissingDependencyError: transformers is not installed.
        """
        from ornstein.policies.from_transformers import read_backbone

        return cls(*read_backbone(Path(folder)))

    @torch.no_grad()
    def answer(
        self,
        pictures: NDArray[np.uint8],
        questions: Sequence[str],
        *,
        most: int | None = None,
        allowed: Collection[int] | None = None,
    ) -> list[Answer]:
        """The likeliest answers, word by word.

        Args:
            pictures: (N, H, W, 3). questions: as many for each, in the pictures' order. most: tokens of an answer; as many as fit by default.
            allowed: tokens that it may be made of, besides its end; all but padding by default.

        Raises:
            DataError: most below 1, no picture, questions that are not as many for each picture, a picture of another size, a question that leaves no room for an
                answer, or tokens that do not exist.
        """
        if most is not None and most < 1:
            raise DataError(f"an answer has at least one token, got most = {most}")
        if not len(pictures) or not questions or len(questions) % len(pictures):
            raise DataError(f"each picture takes as many questions: got {len(questions)} for {len(pictures)}")
        device = next(self.network.parameters()).device
        seen = self.network.see(torch.from_numpy(pictures).to(device))
        about = len(questions) // len(pictures)
        asked = [question_tokens(self.tokenizer, question) for question in questions]
        may = self._may(allowed, device)
        answers: list[Answer | None] = [None] * len(questions)
        # Texts of one length go together, so that none is padded.
        for length in sorted({len(one) for one in asked}):
            room = self.network.config.context - length
            if room < 1:
                raise DataError(
                    f"the question is {length} tokens long, and question and answer are {self.network.config.context} at most"
                )
            rows = [k for k, one in enumerate(asked) if len(one) == length]
            prompts = torch.tensor([asked[k] for k in rows], device=device)
            found = self._written(seen[[k // about for k in rows]], prompts, min(room, most or room), may)
            for k, one in zip(rows, found, strict=True):
                answers[k] = one
        return [one for one in answers if one is not None]

    def _may(self, allowed: Collection[int] | None, device: torch.device) -> Tensor:
        may = torch.full((self.tokenizer.size,), allowed is None, device=device)
        may[self.tokenizer.pad] = False
        if allowed is not None:
            if not allowed or not all(0 <= token < self.tokenizer.size for token in allowed):
                raise DataError(f"allowed tokens are some of 0 … {self.tokenizer.size - 1}, got {sorted(allowed)[:5]}")
            may[list(allowed)] = True
        may[self.tokenizer.end] = True
        return may

    def _written(self, seen: Tensor, prompts: Tensor, most: int, may: Tensor) -> list[Answer]:
        logits, cache = self.network.begin(seen, prompts)
        written: list[Tensor] = []
        chances = torch.zeros(len(prompts), device=prompts.device)
        over = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
        for _ in range(most):
            scores = logits.masked_fill(~may, -torch.inf).log_softmax(-1)
            best, token = scores.max(-1)
            chances += torch.where(over, 0.0, best)
            written.append(torch.where(over, self.tokenizer.pad, token))
            over |= token == self.tokenizer.end
            if over.all() or len(written) == most:
                break
            logits, cache = self.network.go_on(token, cache)
        texts = [self.tokenizer.decode(row) for row in torch.stack(written, dim=1).tolist()]
        return [Answer(text.strip(), float(chance), bool(end)) for text, chance, end in zip(texts, chances, over, strict=True)]


def speaking_network(config: Mapping[str, Any]) -> SpeakingNetwork:
    """The network of such a configuration, its weights fresh.

    Raises:
        DataError, TypeError: the configuration is of no such network.
    """
    if "backbone" in config:
        return TransformersNetwork(TransformersConfig(**config))
    return VisionLanguageNetwork(VisionLanguageConfig(**config))
