"""Recipe `vlm-emoji`: a small vision-language model that answers questions about pictures. `ornstein train vlm-emoji`.

What RT-2 starts from: it knows what things look like, where they are and what is said of them, and nothing of robots. It first learns to name what
lies at each place, which is most of the work and needs many pictures and no words; then questions. Pictures are drawn as they are needed, so that none
comes twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.checks import require_at_least, require_seeds
from ornstein.core.errors import DataError
from ornstein.networks.vision_language import VisionLanguageConfig
from ornstein.training import Optimization

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ornstein.data.questions import Lesson
    from ornstein.language import TextTokenizer
    from ornstein.networks.speaking import SpeakingNetwork
    from ornstein.networks.vision_language import VisionLanguageNetwork
    from ornstein.training import Batch, TrainResult

CARD = """Answers questions about pictures of drawings, digits and coloured cards: what is where, how many, what is said of it. Trained on lessons
that are drawn from OpenMoji (stream seed 0), and on nothing of robots. The drawings are CC BY-SA 4.0 by OpenMoji (https://openmoji.org), and so are these
weights."""
_PREVIEWS = 12
#: Lessons whose texts the tokenizer is trained on.
_TEXTS = 3000


def _naming() -> Optimization:
    return Optimization(
        steps=2000,
        batch_size=48,
        learning_rate=1.5e-3,
        warmup_steps=100,
        weight_decay=0.02,
        ema_decay=0.998,
        checkpoint_every=250,
    )


def _optimization() -> Optimization:
    return Optimization(
        steps=8000,
        batch_size=16,
        learning_rate=1.5e-3,
        warmup_steps=100,
        weight_decay=0.02,
        ema_decay=0.998,
        checkpoint_every=250,
        preview_every=4000,
    )


@dataclass(frozen=True)
class VLMEmojiRecipe:
    """Every hyper-parameter of the model.

    naming: of the first stage, in which the encoder learns what lies at each place. optimization: of the second, on questions.
    questions: about each picture. recognition: weight of naming beside the questions; nothing of it is used when answering.
    """

    network: VisionLanguageConfig = field(default_factory=VisionLanguageConfig)
    naming: Optimization = field(default_factory=_naming)
    optimization: Optimization = field(default_factory=_optimization)
    data_seed: int = 0
    questions: int = 4
    recognition: float = 1.0

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_at_least(1, questions=self.questions)
        require_at_least(0, recognition=self.recognition)


def train_vlm_emoji(recipe: VLMEmojiRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Learn to name in `out/naming`, to answer in `out`, where the `model` is in the end.

    Raises:
        DataError: what lessons say does not make as many tokens as the network's vocabulary.
    """
    from ornstein.hub import load
    from ornstein.networks.vision_language import VisionLanguageNetwork
    from ornstein.policies import VisionLanguageModel
    from ornstein.training import begun_stages, initialise

    first = out / "naming"
    goes_on = begun_stages([first, out], resume=resume)
    tokenizer = trained_tokenizer(recipe.network.vocabulary, recipe.data_seed)
    if tokenizer.size != recipe.network.vocabulary:
        raise DataError(
            f"what lessons say makes {tokenizer.size} tokens, not {recipe.network.vocabulary}: give --network.vocabulary {tokenizer.size}"
        )
    fresh = initialise(lambda: fresh_network(recipe.network, tokenizer), recipe.naming.seed)
    _learn_to_name(recipe, tokenizer, fresh, first, resume=goes_on[first])
    seeing = load(first, expect="vision-language")
    assert isinstance(seeing, VisionLanguageModel)
    assert isinstance(seeing.network, VisionLanguageNetwork)
    return _learn_to_answer(recipe, tokenizer, seeing.network.requires_grad_(), out, resume=goes_on[out])


def fresh_network(config: VisionLanguageConfig, tokenizer: TextTokenizer) -> VisionLanguageNetwork:
    """With the tokens of places in their order. Parameters are drawn from torch's global generator."""
    from ornstein.networks.vision_language import VisionLanguageNetwork

    network = VisionLanguageNetwork(config)
    order_places(network, tokenizer)
    return network


def order_places(network: SpeakingNetwork, tokenizer: TextTokenizer) -> None:
    """Let the tokens of places begin as numbers, see `SpeakingNetwork.order_tokens`."""
    from ornstein.policies import PlaceTokens

    for tokens in PlaceTokens.of(tokenizer):
        network.order_tokens(tokens)


def _learn_to_name(
    recipe: VLMEmojiRecipe, tokenizer: TextTokenizer, network: VisionLanguageNetwork, out: Path, *, resume: bool
) -> TrainResult:
    """What lies where, from pictures alone."""
    from ornstein.data.questions import Lessons
    from ornstein.training import train

    lessons, naming = Lessons(seed=recipe.data_seed, questions=1), _Naming()

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        named, recognised = naming(model, model.look(batch["pictures"]), batch)  # type: ignore[arg-type,operator]
        return named, {"recognised": recognised}

    network.requires_grad_(requires_grad=False)
    for part in (network.vision, network.aids):
        part.requires_grad_()
    return train(
        network,
        loss_fn,
        lambda indices: picture_tensors([lessons.at(int(i)) for i in indices]),
        recipe.naming,
        out,
        resume=resume,
        **_described(recipe, tokenizer),
    )


def _learn_to_answer(
    recipe: VLMEmojiRecipe, tokenizer: TextTokenizer, network: VisionLanguageNetwork, out: Path, *, resume: bool
) -> TrainResult:
    """All of it, from pictures and questions."""
    from ornstein.data.questions import Lessons
    from ornstein.networks.vision_language import VisionLanguageNetwork
    from ornstein.policies import PlaceTokens, TextTensors, answer_loss
    from ornstein.training import train

    # Other pictures than those that it learned to name on.
    first = recipe.naming.steps * recipe.naming.batch_size
    lessons, naming = Lessons(seed=recipe.data_seed, questions=recipe.questions), _Naming()
    known = PlaceTokens.of(tokenizer)

    def batch_of(indices: np.ndarray) -> Batch:
        return lesson_tensors([lessons.at(first + int(i)) for i in indices], tokenizer, recipe.questions)

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(model, VisionLanguageNetwork)
        features = model.look(batch["pictures"])
        texts = TextTensors(batch["tokens"], batch["answered"])
        answers, log = answer_loss(model, model.at_places(features), texts, known)
        named, recognised = naming(model, features, batch)
        return answers + recipe.recognition * named, {**log, "naming": named.detach(), "recognised": recognised}

    return train(
        network,
        loss_fn,
        batch_of,
        recipe.optimization,
        out,
        preview=lambda model, step, path: _preview(model, tokenizer, recipe, path),
        resume=resume,
        **_described(recipe, tokenizer),
    )


def _described(recipe: VLMEmojiRecipe, tokenizer: TextTokenizer) -> dict[str, Any]:
    """What the checkpoints of both stages say of themselves."""
    return {
        "recipe": "vlm-emoji",
        "kind": "vision-language",
        "config": {**asdict(recipe.network), "tokenizer": tokenizer.to_json()},
        "hyper_parameters": asdict(recipe),
        "card": CARD,
    }


class _Naming:
    """The loss of telling what lies at each place, among all names that pictures show."""

    def __init__(self) -> None:
        import torch

        from ornstein.data.web_pictures import item_names
        from ornstein.language import UniversalSentenceEncoder

        self.names = torch.from_numpy(UniversalSentenceEncoder().encode(item_names()))

    def __call__(self, model: VisionLanguageNetwork, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        from ornstein.policies import recognition_loss

        grid = model.vision.grid
        maps = features.transpose(1, 2).reshape(len(features), -1, grid, grid)
        return recognition_loss(model.aids, maps, batch["things"], batch["places"], self.names.to(maps.device))


def trained_tokenizer(size: int, seed: int) -> TextTokenizer:
    """Of what lessons say and robots are told, with a token for each place's column and row."""
    from ornstein.data.questions import PLACES, Lessons
    from ornstein.data.spoken_tasks import SpokenTasks
    from ornstein.language import TextTokenizer

    stream = Lessons(seed=seed)
    texts = [f"Q: {question.text} A: {question.answer}" for k in range(_TEXTS) for question in stream.at(k).questions]
    told = [f"Q: what action should the robot take to {sentence}? A:" for sentence in SpokenTasks(_TEXTS, seed=seed).sentences()]
    return TextTokenizer.train([*texts, *told], size=size, special=[f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)])


def lesson_tensors(lessons: list[Lesson], tokenizer: TextTokenizer, about: int) -> Batch:
    """Pictures with what lies where, and `about` texts for each, as `answer_loss` takes them."""
    from ornstein.policies.texts import text_tensors

    asked: list[tuple[str, str] | None] = []
    for lesson in lessons:
        asked += [(question.text, question.answer) for question in lesson.questions]
        asked += [None] * (about - len(lesson.questions))
    return {**picture_tensors(lessons), **text_tensors(tokenizer, asked)._asdict()}


def picture_tensors(lessons: list[Lesson]) -> Batch:
    """Pictures, and what lies where, as `recognition_loss` takes it."""
    import torch

    from ornstein.data.web_pictures import MOST_ITEMS, item_names, name_of, render

    number = {name: k for k, name in enumerate(item_names())}
    things, places = torch.full((len(lessons), MOST_ITEMS), -1), torch.zeros(len(lessons), MOST_ITEMS, 2)
    for row, lesson in enumerate(lessons):
        for k, item in enumerate(lesson.picture.items):
            things[row, k], places[row, k] = number[name_of(item)], torch.tensor([item.x, item.y])
    return {
        "pictures": torch.from_numpy(np.stack([render(lesson.picture) for lesson in lessons])),
        "things": things,
        "places": places,
    }


def _preview(model: nn.Module, tokenizer: TextTokenizer, recipe: VLMEmojiRecipe, path: Path) -> None:
    """Validation pictures, and beside them what was asked, answered and right."""
    import copy

    from ornstein.data.pictures import contact_sheet
    from ornstein.data.questions import Lessons
    from ornstein.data.web_pictures import render
    from ornstein.networks.vision_language import VisionLanguageNetwork
    from ornstein.policies import VisionLanguageModel

    assert isinstance(model, VisionLanguageNetwork)
    answering = VisionLanguageModel(copy.deepcopy(model).eval(), tokenizer)
    stream = Lessons(seed=recipe.data_seed, split="validation", questions=recipe.questions)
    lessons = [stream.at(k) for k in range(_PREVIEWS)]
    pictures = np.stack([render(lesson.picture) for lesson in lessons])
    contact_sheet(pictures, columns=6).save(path)
    lines = []
    for k, lesson in enumerate(lessons):
        found = answering.answer(pictures[k : k + 1], [question.text for question in lesson.questions])
        lines += [
            f"{k + 1:>3}  {question.text:<60}  {answer.text:<40}  ({question.answer})"
            for question, answer in zip(lesson.questions, found, strict=True)
        ]
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf8")
