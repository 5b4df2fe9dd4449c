"""Sentence encoders and tokenizers behind one small protocol."""

from ornstein.language.sentence import (
    MAX_CHARACTERS,
    SENTENCE_SIZE,
    UniversalSentenceEncoder,
    check_text,
)

__all__ = ["MAX_CHARACTERS", "SENTENCE_SIZE", "UniversalSentenceEncoder", "check_text"]
