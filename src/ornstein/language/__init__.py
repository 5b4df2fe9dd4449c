"""Sentence encoders and tokenizers behind one small protocol."""

from ornstein.language.sentence import (
    MAX_CHARACTERS,
    SENTENCE_SIZE,
    UniversalSentenceEncoder,
    check_text,
)
from ornstein.language.text_tokenizer import TextTokenizer

__all__ = ["MAX_CHARACTERS", "SENTENCE_SIZE", "TextTokenizer", "UniversalSentenceEncoder", "check_text"]
