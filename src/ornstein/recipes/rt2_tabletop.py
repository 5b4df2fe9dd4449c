"""Recipe `rt2-tabletop`: a vision-language model learns to act and goes on answering. `ornstein train rt2-tabletop`.

Co-fine-tuning as in RT-2 (Zitkovich et al. 2023, §3.2): every step shows pictures of the robot's own data, with what it should do in words of
actions, and pictures with questions, so that what was known before is not forgotten. What is learned from what is one field each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ornstein.core.checks import require_at_least, require_seeds, require_shares
from ornstein.core.errors import DataError, unknown_name
from ornstein.language.text_tokenizer import ActionTokens
from ornstein.policies import RT1Config
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe
from ornstein.training import Optimization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ornstein.data.questions import Lessons
    from ornstein.policies import RT2Network, VisionLanguageModel
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.training import Batch, TrainResult

#: Lessons of a run that starts from a model that has seen the first ones.
_FIRST_LESSON = 1_000_000
Start = Literal["base", "scratch"]
Learning = Literal["all", "new"]


def _optimization() -> Optimization:
    return Optimization(
        steps=6000,
        batch_size=48,
        learning_rate=1e-3,
        warmup_steps=200,
        weight_decay=0.02,
        ema_decay=0.998,
        checkpoint_every=250,
        preview_every=2000,
    )


@dataclass(frozen=True)
class RT2TabletopRecipe:
    """Every hyper-parameter of the policy.

    base: a shipped vision-language model, or the folder of one. start: "scratch" keeps its sizes and its tokenizer but none of its weights.
    learning: what changes, all weights, or only what is new: the tokens of actions and what reads the arm's state.
    robot_share: of a step's pictures, and of the loss, those of the robot's data; the rest comes with questions. 1 is fine-tuning without web data.
    questions: about each of the others. stills: with each picture of an episode, so many that say where to, and not what to do.
    action_tokens: whether tokens are added or overwritten, see `TextTokenizer.with_actions`. num_bins: of each dimension. smoothing_bins: see `speech_loss`.
    pointers: whether it says where before it says what to do. state_size: numbers of the arm's state that it reads; 0 for none, as in the paper.
    without: concepts that the questions leave out, a control.
    All else as in `RT1TabletopRecipe`; it learns from demonstrations alone.
    """

    base: str = "vlm-emoji"
    start: Start = "base"
    learning: Learning = "all"
    robot_share: float = 0.66
    questions: int = 4
    stills: float = 0.5
    action_tokens: ActionTokens = "overwrite"
    num_bins: int = 256
    smoothing_bins: float = 1.5
    pointers: bool = True
    state_size: int = 7
    without: tuple[str, ...] = ()
    optimization: Optimization = field(default_factory=_optimization)
    data: Path | None = None
    also: tuple[Path, ...] = ()
    weights: tuple[float, ...] = ()
    cache: Path | None = None
    episodes: int = 6000
    data_seed: int = 0
    disturbance: float = 0.05
    vary: tuple[Literal["lights", "table", "camera", "sizes"], ...] = ("lights", "table")
    plain: bool = True
    views: int = 20_000
    color_jitter: float = 0.1
    preview_episodes: int = 40

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_shares(robot_share=self.robot_share)
        require_at_least(1, questions=self.questions)
        require_at_least(0, stills=self.stills, smoothing_bins=self.smoothing_bins, state_size=self.state_size)
        if self.robot_share == 0:
            raise DataError("robot_share is 0: it would learn nothing of the robot")
        for name, value, known in (("start", self.start, Start), ("what learns", self.learning, Learning)):
            if value not in get_args(known):
                raise unknown_name(name, value, get_args(known))
        plan_of(self, RT1Config())  # says what is wrong with the rest


def plan_of(recipe: RT2TabletopRecipe, network: RT1Config) -> RT1TabletopRecipe:
    """The recipe that records and keeps the same data, with a network that looks at pictures of that size."""
    names = ("data", "also", "weights", "cache", "episodes", "data_seed", "disturbance", "vary", "plain", "color_jitter")
    settings: dict[str, Any] = {
        name: getattr(recipe, name) for name in (*names, "num_bins", "smoothing_bins", "preview_episodes")
    }
    return RT1TabletopRecipe(**settings, network=network, views=recipe.views if recipe.stills else 0, sentences=0, scenes=())


def train_rt2_tabletop(recipe: RT2TabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Record if the data are missing, learn, export to `out/model`; what it does and answers in validation scenes lands in `previews`.

    Raises:
        UnknownNameError, CheckpointError: the base is no vision-language model. DataError: it has no room for so many action tokens.
    """
    from ornstein.hub import find_checkpoint, load
    from ornstein.policies import VisionLanguageModel
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.training import RunFolder, initialise, main_process_first, train

    RunFolder(out).check(resume=resume)
    base, fingerprint = load(recipe.base, expect="vision-language"), find_checkpoint(recipe.base).fingerprint
    assert isinstance(base, VisionLanguageModel)
    with main_process_first():
        examples = RT1Examples.prepare(plan_of(recipe, RT1Config(image_size=base.network.config.image_size)), out)
    model = initialise(lambda: begun(recipe, base, examples), recipe.optimization.seed)
    network: RT2Network = model.network  # type: ignore[assignment]
    speech = RobotSpeech(model.tokenizer, examples.contract, recipe.pointers)
    batches = _Batches(recipe, examples, speech)
    return train(
        network,
        lambda model, batch, rng: co_fine_tuning_loss(recipe, speech, model, batch, rng),
        batches.at,
        recipe.optimization,
        out,
        resume=resume,
        recipe="rt2-tabletop",
        kind="rt2",
        config={**asdict(network.config), "tokenizer": model.tokenizer.to_json(), "pointers": recipe.pointers},
        hyper_parameters={
            **asdict(recipe),
            "data": str(recipe.data or ""),
            "also": [str(folder) for folder in recipe.also],
            "cache": str(recipe.cache or ""),
            "base_fingerprint": fingerprint,
            "data_fingerprint": examples.data.fingerprint,
        },
        contract=examples.contract,
        preview=lambda changed, step, path: _preview(recipe, speech, examples, changed, path),
        card=_card(recipe, fingerprint, examples),
    )


def begun(recipe: RT2TabletopRecipe, base: VisionLanguageModel, examples: RT1Examples) -> VisionLanguageModel:
    """What learning starts from; new parameters are drawn from torch's global generator."""
    import torch

    from ornstein.networks.vision_language import VisionLanguageNetwork
    from ornstein.policies import VisionLanguageModel, with_actions

    if recipe.start == "scratch":
        base = VisionLanguageModel(VisionLanguageNetwork(base.network.config), base.tokenizer)
    model = with_actions(base, bins=recipe.num_bins, manner=recipe.action_tokens, state_size=recipe.state_size)
    network: RT2Network = model.network  # type: ignore[assignment]
    states = torch.from_numpy(examples.data.states[:, : recipe.state_size])
    network.state_mean.copy_(states.mean(0))
    network.state_std.copy_(states.std(0, correction=0).clamp_min(1e-3))
    network.requires_grad_(recipe.learning == "all")
    network.aids.requires_grad_(requires_grad=False)  # naming was its first stage
    if recipe.learning == "new":
        _only_what_is_new(network, model.tokenizer.actions)
    return model


def _only_what_is_new(network: RT2Network, actions: tuple[int, ...]) -> None:
    """The state's way in, and of the tokens' vectors those of actions."""
    import torch

    if network.state_in is not None:
        network.state_in.requires_grad_()
    vectors = network.tokens_in.weight.requires_grad_()
    new = torch.zeros(len(vectors), 1)
    new[list(actions)] = 1.0
    vectors.register_hook(lambda gradient: gradient * new.to(gradient.device))  # type: ignore[no-untyped-call]


class _Batches:
    """Pictures of the robot's data and of lessons, `robot_share` of the first, spread evenly over the stream."""

    def __init__(self, recipe: RT2TabletopRecipe, examples: RT1Examples, speech: RobotSpeech) -> None:
        from ornstein.data.questions import Lessons

        self._recipe, self._examples, self._speech = recipe, examples, speech
        self._lessons: Lessons = Lessons(seed=recipe.data_seed, questions=recipe.questions, without=recipe.without)

    def at(self, indices: np.ndarray) -> Batch:
        """Picture i is a function of (seed, i)."""
        share = self._recipe.robot_share
        # The number of the robot's among all before it; where it rises, a picture is one of them.
        robots = np.floor((indices + 1) * share) > np.floor(indices * share)
        batch: Batch = {}
        if robots.any():
            batch |= self._acted(indices[robots])
        stills = indices[robots][: round(robots.sum() * self._recipe.stills)]
        if len(stills):
            batch |= self._pointed(stills)
        if not robots.all():
            batch |= self._asked(indices[~robots])
        return batch

    def _acted(self, indices: np.ndarray) -> Batch:
        import torch

        from ornstein.policies import robot_texts

        drawn = self._examples.windows.at(indices)
        texts = robot_texts(self._speech, drawn.tasks, drawn.actions[:, 0], drawn.pointers[:, 0])
        return {
            "robot_pictures": torch.from_numpy(drawn.pictures[:, 0]),
            "robot_state": torch.from_numpy(drawn.states[:, 0, : self._recipe.state_size]),
            "robot_tokens": texts.tokens,
            "robot_answered": texts.answered,
        }

    def _pointed(self, indices: np.ndarray) -> Batch:
        import torch

        from ornstein.policies import pointing_texts

        views = self._examples.views
        assert views is not None
        pictures, said, pointers = views.stills(indices)
        texts = pointing_texts(self._speech, said, pointers)
        return {"still_pictures": torch.from_numpy(pictures), "still_tokens": texts.tokens, "still_answered": texts.answered}

    def _asked(self, indices: np.ndarray) -> Batch:
        from ornstein.recipes.vlm_emoji import lesson_tensors

        lessons = [self._lessons.at(_FIRST_LESSON + int(i)) for i in indices]
        asked = lesson_tensors(lessons, self._speech.tokenizer, self._recipe.questions)
        return {f"web_{name}": asked[name] for name in ("pictures", "tokens", "answered")}


def co_fine_tuning_loss(
    recipe: RT2TabletopRecipe, speech: RobotSpeech, network: RT2Network, batch: Batch, rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy a token of what the robot should say, weighed by `robot_share`, and of answers, by the rest."""
    from ornstein.policies import TextTensors, answer_loss, jittered, speech_loss

    def seen(pictures: Tensor) -> Tensor:
        return network.see(jittered(pictures[:, None], recipe.color_jitter, rng)[:, 0])

    log: dict[str, Tensor] = {}
    losses: list[Tensor] = []
    if "robot_pictures" in batch:
        texts = TextTensors(batch["robot_tokens"], batch["robot_answered"])
        felt = network.with_state(seen(batch["robot_pictures"]), batch["robot_state"])
        acted, more = speech_loss(network, speech, felt, texts, recipe.smoothing_bins)
        losses.append(recipe.robot_share * acted)
        log |= more
    if "still_pictures" in batch:
        texts = TextTensors(batch["still_tokens"], batch["still_answered"])
        pointed, log["pointed_right"] = answer_loss(network, seen(batch["still_pictures"]), texts)
        losses.append(recipe.robot_share * pointed)
    if "web_pictures" in batch:
        texts = TextTensors(batch["web_tokens"], batch["web_answered"])
        answered, log["right"] = answer_loss(network, network.see(batch["web_pictures"]), texts)
        losses.append((1 - recipe.robot_share) * answered)
        log["answers"] = answered.detach()
    return sum(losses[1:], losses[0]), log


def _preview(recipe: RT2TabletopRecipe, speech: RobotSpeech, examples: RT1Examples, model: nn.Module, path: Path) -> None:
    """The last picture of each validation scene as a contact sheet, named by how many were solved and by how many questions were answered rightly."""
    import copy

    from ornstein.data.questions import Lessons
    from ornstein.evaluation.answers import examine
    from ornstein.policies import RT2Policy, VisionLanguageModel
    from ornstein.recipes.rt1_practice import tried_in_validation

    answering = VisionLanguageModel(copy.deepcopy(model).eval(), speech.tokenizer)  # type: ignore[arg-type]
    policy = RT2Policy(answering, examples.contract, pointers=recipe.pointers)
    tried = tried_in_validation(policy, recipe.preview_episodes)
    lessons = Lessons(seed=recipe.data_seed, split="validation", questions=recipe.questions, without=recipe.without)
    right = examine(answering, lessons, range(recipe.preview_episodes))["all"]
    name = f"{path.stem}-success-{tried.solved}-of-{recipe.preview_episodes}-answers-{right.successes}-of-{right.n}{path.suffix}"
    tried.sheet.save(path.with_name(name))


def _card(recipe: RT2TabletopRecipe, fingerprint: str, examples: RT1Examples) -> str:
    from ornstein.recipes.rt1_practice import data_card

    begins = f"the weights of `{recipe.base}` ({fingerprint})" if recipe.start == "base" else "fresh weights"
    web = f" and questions about pictures ({1 - recipe.robot_share:.0%} of all pictures)" if recipe.robot_share < 1 else ""
    return f"A vision-language model that acts. It began with {begins} and learned from what follows{web}. {data_card(examples.data, 0)}"
