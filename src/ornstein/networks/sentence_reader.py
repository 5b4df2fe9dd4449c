"""A sentence as one vector: what an encoder says of the whole, and who does what to whom.

RT-1 (Brohan et al. 2022, §5.1) knows an instruction by the Universal Sentence Encoder's vector alone. That vector hardly tells "the crab on
the car" from "the car on the crab": a classifier names the block to be stacked in 78 % of sentences, and in all of them from the word pieces
(docs/lab-notes.md). So the pieces may be read as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.core.errors import DataError
from ornstein.networks.text_block import TextBlock

if TYPE_CHECKING:
    from jaxtyping import Float

SENTENCE_SIZE = 512
_HEADS, _QUERIES = 4, 4


class SentenceReader(nn.Module):
    """A linear layer on the standardised vector; with `pieces`, one transformer block over the word pieces as well, whose output learnt
    queries gather."""

    vector_mean: Tensor
    vector_std: Tensor

    def __init__(self, width: int, pieces: int) -> None:
        """
        Args:
            width: of the result. pieces: the most that are read; 0 reads none, as in the paper.
        """
        super().__init__()
        self.width, self.pieces = width, pieces
        self.register_buffer("vector_mean", torch.zeros(SENTENCE_SIZE))
        self.register_buffer("vector_std", torch.ones(SENTENCE_SIZE))
        self.vector_in = nn.Linear(SENTENCE_SIZE, width)
        if pieces:
            self.piece_in = nn.Linear(SENTENCE_SIZE, width)
            self.block = TextBlock(width, _HEADS, pieces)
            self.norm = nn.LayerNorm(width)
            self.queries = nn.Linear(width, _QUERIES)
            self.gathered_in = nn.Linear(_QUERIES * width, width)

    def forward(self, sentence: Float[Tensor, "batch texts 512"]) -> Float[Tensor, "batch width"]:
        """
        Args:
            sentence: the encoder's vector of the whole, then `pieces` word pieces' vectors, zero beyond the text's end.

        Raises:
            DataError: another shape.
        """
        if sentence.ndim != 3 or sentence.shape[1:] != (1 + self.pieces, SENTENCE_SIZE):
            raise DataError(f"a sentence is (batch, {1 + self.pieces}, {SENTENCE_SIZE}) numbers, got {tuple(sentence.shape)}")
        read_BD: Tensor = self.vector_in((sentence[:, 0] - self.vector_mean) / self.vector_std)
        if not self.pieces:
            return read_BD
        pieces_BLS = sentence[:, 1:]
        mask_BL = (pieces_BLS != 0).any(-1)
        text_BLD = self.norm(self.block(self.piece_in(pieces_BLS), mask_BL))
        weights_BLQ = self.queries(text_BLD).float().masked_fill(~mask_BL[..., None], -1e4).softmax(1) * mask_BL[..., None]
        gathered_BQD = weights_BLQ.to(text_BLD.dtype).transpose(1, 2) @ text_BLD
        return read_BD + self.gathered_in(gathered_BQD.flatten(1))
