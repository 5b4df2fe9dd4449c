"""A vision-language model of another's, read from the folder that transformers saved it in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ornstein.core.checkpoint import foreign_family
from ornstein.core.errors import CheckpointError, MissingDependencyError, unknown_name
from ornstein.data.questions import PLACES
from ornstein.language.foreign_tokenizer import from_transformers
from ornstein.networks.transformers_backbone import FAMILIES, TransformersConfig, TransformersNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from ornstein.language import TextTokenizer

#: What stands before and behind a picture where a family's models were trained; what a tokenizer does not know is left out.
_FRAMES = {
    "smolvlm": (("<fake_token_around_image>", "<global-img>"), ("<fake_token_around_image>",)),
    "idefics3": (("<fake_token_around_image>", "<global-img>"), ("<fake_token_around_image>",)),
    "paligemma": ((), ("<bos>",)),
    "llava": (("<s>",), ()),
}


def read_backbone(folder: Path) -> tuple[TransformersNetwork, TextTokenizer]:
    """Network and tokenizer; errors as for `VisionLanguageModel.from_transformers`."""
    try:
        from transformers import AutoModelForImageTextToText, AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError("a backbone of another's needs transformers: pip install 'ornstein[vlm]'") from error
    family = foreign_family(folder)
    if family is None:
        raise CheckpointError(f"{folder} holds no model of the transformers library: its config.json should name a model_type")
    if family not in FAMILIES:
        raise unknown_name("family of vision-language models", family, FAMILIES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        found: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{folder} cannot be read by transformers: {str(error).splitlines()[0]}") from error
    backbone, loaded = found
    wrong = [*loaded["missing_keys"], *loaded["mismatched_keys"]]
    if wrong:
        raise CheckpointError(
            f"the weights in {folder} are not all there: {', '.join(map(str, sorted(wrong)[:4]))} of {len(wrong)} missing or misshapen"
        )
    own = from_transformers(tokenizer, [f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)])
    settings = backbone.config.to_dict()
    numbers = tokenizer.get_vocab()
    before, after = (tuple(numbers[mark] for mark in marks if mark in numbers) for marks in _FRAMES[family])
    mean, std = _colours(folder)
    config = TransformersConfig(
        backbone=settings,
        vocabulary=own.size,
        mean=mean,
        std=std,
        before=before,
        after=after,
        image_size=int(settings["vision_config"]["image_size"]),
    )
    network = TransformersNetwork(config, backbone)
    return network.eval(), own


def _colours(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by which the model's own pictures were standardised: 0.5 each where its files do not say."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        path = folder / "processor_config.json"
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        settings = settings.get("image_processor", settings)
        mean, std = (tuple(float(number) for number in settings.get(name, (0.5,) * 3)) for name in ("image_mean", "image_std"))
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise CheckpointError(f"{path} should standardise three colours, by positive numbers; it says {mean} and {std}")
    return mean, std
