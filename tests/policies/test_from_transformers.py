"""Another's vision-language model says what it would say by itself, learns to act, and is kept and loaded as ours are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.policies.foreign import MARKS, save_model

import ornstein
from ornstein.core.errors import CheckpointError, DataError, UnknownNameError
from ornstein.networks.transformers_backbone import FAMILIES, TransformersNetwork
from ornstein.policies import VisionLanguageModel


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_model(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def _pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_what_transformers_own_forward_pass_says(family: str, folders: dict[str, Path]) -> None:
    """Picture and frame in their places; where a question is read both ways, as its own token types say so."""
    from transformers import AutoModelForImageTextToText

    model = VisionLanguageModel.from_transformers(folders[family])
    network = model.network
    assert isinstance(network, TransformersNetwork)
    theirs = AutoModelForImageTextToText.from_pretrained(folders[family]).eval()
    pictures = _pictures()
    asked = torch.tensor([model.tokenizer.encode("Q: what is it? A: lion")] * 2)
    asked[1, 3] = 40
    answered = torch.zeros_like(asked, dtype=torch.bool)
    answered[:, -3:] = True
    with torch.inference_mode():
        seen = network.see(torch.from_numpy(pictures))
        ours = network.say(network.read_and_look(seen, asked, answered)[0])
        pixels = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
        pixels = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.3, 0.25, 0.2]).view(3, 1, 1)
        config = network.config
        before, shown, after = config.before, (MARKS.index("<image>"),) * seen.shape[1], config.after
        ids = torch.cat([torch.tensor([[*before, *shown, *after]] * 2), asked], dim=1)
        more = {}
        if family == "paligemma":
            assert config.after == (MARKS.index("<bos>"),)
            more["token_type_ids"] = torch.cat([torch.zeros(2, ids.shape[1] - asked.shape[1]), answered], dim=1).long()
        several = family in ("idefics3", "smolvlm")
        found = theirs(input_ids=ids, pixel_values=pixels[:, None] if several else pixels, **more).logits
    assert ours.shape[-1] == found.shape[-1] + 128  # places are new
    torch.testing.assert_close(ours[..., : found.shape[-1]], found[:, -asked.shape[1] :], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_token_after_the_other_is_all_at_once(family: str, folders: dict[str, Path]) -> None:
    model = VisionLanguageModel.from_transformers(folders[family])
    tokens = torch.tensor([model.tokenizer.encode("Q: which one is smaller? A: the orange")] * 4)
    tokens[2:, -2] = 40
    question = tokens.shape[1] - 3
    answered = torch.zeros_like(tokens, dtype=torch.bool)
    answered[:, question:] = True
    with torch.inference_mode():
        seen = model.network.see(torch.from_numpy(_pictures()))
        read, looks = model.network.read_and_look(seen, tokens, answered)
        whole = model.network.say(read)
        assert looks is None
        logits, cache = model.network.begin(seen, tokens[:, :question])
        torch.testing.assert_close(logits, whole[:, question - 1], rtol=1e-3, atol=1e-3)
        for k in range(question, tokens.shape[1]):
            logits, cache = model.network.go_on(tokens[:, k], cache)
            torch.testing.assert_close(logits, whole[:, k], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(whole[0], whole[2], atol=1e-2)  # each text is about its own picture


def test_what_a_question_is_asked_of_is_resized(folders: dict[str, Path]) -> None:
    """A picture twice as large, each pixel four times, is the same picture but for its edges' smoothing."""
    model = VisionLanguageModel.from_transformers(folders["smolvlm"])
    plain = (
        np.repeat(np.arange(2, dtype=np.uint8)[:, None, None, None] * 90 + 60, 32, axis=1).repeat(32, axis=2).repeat(3, axis=3)
    )
    small = model.network.see(torch.from_numpy(plain))
    model.network.look_at(64)  # type: ignore[operator]
    large = model.network.see(torch.from_numpy(plain.repeat(2, axis=1).repeat(2, axis=2)))
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match="64 × 64"):
        model.network.see(torch.from_numpy(plain))


def test_a_folder_is_loaded_as_every_model_is(folders: dict[str, Path]) -> None:
    model = ornstein.load(folders["smolvlm"], expect="vision-language")
    (answer,) = model.answer(_pictures()[:1], ["what is this?"], most=3)
    assert answer.log_probability < 0
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(CheckpointError, match="a smolvlm model of the transformers library"):
        ornstein.load(folders["smolvlm"], expect="rt1")


def test_what_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model of the transformers library"):
        VisionLanguageModel.from_transformers(tmp_path)
    with pytest.raises(DataError, match="writes '12' as one token"):
        VisionLanguageModel.from_transformers(save_model("llava", tmp_path / "merged", digits_apart=False))
    with pytest.raises(DataError, match="need as many codes"):
        VisionLanguageModel.from_transformers(folders["llava"]).tokenizer.with_actions(256)

    other = Path(shutil.copytree(folders["llava"], tmp_path / "other"))
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "model_type": "qwen2_vl"}))
    with pytest.raises(UnknownNameError, match="qwen2_vl"):
        VisionLanguageModel.from_transformers(other)

    torn = Path(shutil.copytree(folders["llava"], tmp_path / "torn"))
    weights = load_file(torn / "model.safetensors")
    gone = next(name for name in weights if "projector" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, torn / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="not all there"):
        VisionLanguageModel.from_transformers(torn)
    (torn / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError):
        VisionLanguageModel.from_transformers(torn)

    colourless = Path(shutil.copytree(folders["llava"], tmp_path / "colourless"))
    (colourless / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0, 0.5]}')
    with pytest.raises(CheckpointError, match="positive numbers"):
        VisionLanguageModel.from_transformers(colourless)


def test_new_tokens_are_new_and_the_rest_is_as_it_was(folders: dict[str, Path]) -> None:
    """Places come behind what it had; overwritten codes are the last that were learnt and are spelled by others since."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folders["smolvlm"])
    tokenizer = VisionLanguageModel.from_transformers(folders["smolvlm"]).tokenizer
    text = "Q: seize the extinct animal, and 12 more A: no"
    assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert tokenizer.encode("<x3><y4>") == [len(theirs) + 3, len(theirs) + 64 + 4]
    acting = tokenizer.with_actions(32)
    assert acting.size == tokenizer.size
    assert min(acting.actions) > len(theirs) - 120
    assert not set(acting.actions) & set(acting.encode(text))
    assert acting.decode(acting.encode(text)) == text
