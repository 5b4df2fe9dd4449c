"""Tiny models of the transformers library, saved to disk as users have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

MARKS = ["<pad>", "<end>", "<bos>", "<s>", "<image>", "<fake_token_around_image>", "<global-img>"]
_TEXTS = [
    "Q: what action should the robot take to pick up the lion? A: <x1> <y2>",
    "Q: in plain words: seize the extinct animal A: pick up the dodo, the last of them died long ago",
    "sphinx of black quartz, judge my vow while five boxing wizards jump over a lazy dog",
    "describe the picture: an orange card, a deer and number 3; which one is smaller, which one is larger?",
] * 4
_TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_SEEING = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def save_tokenizer(folder: Path, *, digits_apart: bool = True, size: int = 500) -> int:
    """Of byte-pair codes, as GPT-2's; how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    parts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits_apart else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=MARKS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*_TEXTS, *["12 12 12 365 365 2048"] * 9], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", bos_token="<bos>")
    fast.save_pretrained(folder)
    return len(fast)


def save_model(family: str, folder: Path, *, digits_apart: bool = True, spare: int = 0) -> Path:
    """A model with random weights, tokenizer and preprocessor. spare: rows of its embedding that no token uses."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    size = save_tokenizer(folder, digits_apart=digits_apart) + spare
    text = {**_TEXT, "vocab_size": size, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    settings: dict[str, Any] = {
        "smolvlm": {"text_config": {**text, "model_type": "llama"}, "vision_config": _SEEING, "scale_factor": 2},
        "idefics3": {"text_config": {**text, "model_type": "llama"}, "vision_config": _SEEING, "scale_factor": 2},
        "paligemma": {
            "text_config": {**text, "model_type": "gemma"},
            "vision_config": {**_SEEING, "model_type": "siglip_vision_model", "projection_dim": 32},
            "projection_dim": 32,
        },
        "llava": {
            "text_config": {**text, "model_type": "llama"},
            "vision_config": {**_SEEING, "model_type": "clip_vision_model", "projection_dim": 32},
        },
    }[family]
    settings |= {"image_token_id": MARKS.index("<image>")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(family, **settings))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.25, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return folder
