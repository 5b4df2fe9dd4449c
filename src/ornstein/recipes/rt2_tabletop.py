"""Recipe `rt2-tabletop`: a vision-language model learns to act and goes on answering. `ornstein train rt2-tabletop`.

Co-fine-tuning as in RT-2 (Zitkovich et al. 2023, §3.2): every step shows pictures of the robot's own data, with what it should do in words of
actions, and pictures with questions, so that what was known before is not forgotten. Then an expert practises to act by what that model says, and is
corrected, as RT-1's arm is. What is learned from what is one field each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ornstein.core.checks import require_at_least, require_shares
from ornstein.core.errors import DataError, unknown_name
from ornstein.language.text_tokenizer import ActionTokens
from ornstein.policies import RT1Config, RT2Config
from ornstein.recipes.recorded import RecordedDemonstrations
from ornstein.recipes.rt1_corrections import Corrections, corrections, joined
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe, arm_optimization
from ornstein.recipes.rt2_batches import RT2Batches, co_fine_tuning_loss
from ornstein.training import Optimization

if TYPE_CHECKING:
    from torch import nn

    from ornstein.policies import ActingNetwork, VisionLanguageModel
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.training import TrainResult

Start = Literal["base", "scratch"]
Learning = Literal["all", "new", "adapters"]


def _speech() -> Optimization:
    return Optimization(
        steps=3000,
        batch_size=48,
        learning_rate=1e-3,
        warmup_steps=200,
        weight_decay=0.02,
        ema_decay=0.998,
        checkpoint_every=250,
        preview_every=1500,
    )


@dataclass(frozen=True)
class RT2TabletopRecipe(RecordedDemonstrations):
    """Every hyper-parameter of the policy.

    base: a shipped vision-language model, or the folder of one, or of one that the transformers library saved. start: "scratch" keeps its sizes and its tokenizer but none of its weights.
    learning: what changes: all weights; or only what is new, without decay: the tokens of actions and what reads the arm's state; or that and adapters of low
    rank beside all else (LoRA). adapter_rank: of those.
    robot_share: of a step's pictures, and of the loss, those of the robot's data; the rest comes with questions. 1 is fine-tuning without web data.
    questions: about each of the others. stills: with each picture of an episode so many, on average, that say where to, and not what to do.
    action_tokens: whether tokens are added or overwritten, see `TextTokenizer.with_actions`. num_bins: of each dimension. smoothing_bins: see `speech_loss`.
    pointers: whether it says where before it says what to do. state_size: numbers of the arm's state that it reads; 0 for none, as in the paper.
    plans: whether lessons also ask for what an instruction means in plain words, see `ornstein.data.plans`. without: concepts that the questions leave
    out, a control.
    speech: of co-fine-tuning. expert_width: of the expert, see `RT2Config`; 0 for none, and co-fine-tuning is all. arm, optimization, scenes, place_noise: of
    its practice, as in `RT1TabletopRecipe`, and all else too.
    """

    base: str = "vlm-emoji"
    start: Start = "base"
    learning: Learning = "all"
    adapter_rank: int = 16
    robot_share: float = 0.66
    questions: int = 4
    stills: float = 0.5
    action_tokens: ActionTokens = "overwrite"
    num_bins: int = 256
    smoothing_bins: float = 1.5
    pointers: bool = True
    state_size: int = 7
    plans: bool = True
    without: tuple[str, ...] = ()
    speech: Optimization = field(default_factory=_speech)
    expert_width: int = 256
    expert_depth: int = 2
    expert_dropout: float = 0.1
    arm: Optimization = field(default_factory=arm_optimization)
    optimization: Optimization = field(default_factory=lambda: replace(arm_optimization(), steps=8000))
    scenes: tuple[int, ...] = (1000, 1000)
    place_noise: float = 0.01
    views: int = 20_000
    color_jitter: float = 0.1
    preview_episodes: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(robot_share=self.robot_share)
        require_at_least(1, questions=self.questions, adapter_rank=self.adapter_rank)
        require_at_least(0, stills=self.stills, smoothing_bins=self.smoothing_bins, state_size=self.state_size)
        require_at_least(1 if self.stills else 0, views=self.views)
        RT2Config(expert_width=self.expert_width, expert_depth=self.expert_depth, expert_dropout=self.expert_dropout)
        if self.expert_width and not self.pointers:
            raise DataError("an expert decides by the places that were said: give --pointers, or --expert-width 0")
        if self.robot_share == 0:
            raise DataError("robot_share is 0: it would learn nothing of the robot")
        for name, value, known in (("start", self.start, Start), ("what learns", self.learning, Learning)):
            if value not in get_args(known):
                raise unknown_name(name, value, get_args(known))
        plan_of(self, RT1Config())  # says what is wrong with the rest


def plan_of(recipe: RT2TabletopRecipe, network: RT1Config) -> RT1TabletopRecipe:
    """The recipe that records and keeps the same data, with a network that looks at pictures of that size."""
    names = [one.name for one in fields(RecordedDemonstrations)]
    names += ["color_jitter", "num_bins", "smoothing_bins", "preview_episodes", "arm", "optimization", "place_noise"]
    settings: dict[str, Any] = {name: getattr(recipe, name) for name in names}
    views, scenes = recipe.views if recipe.stills else 0, recipe.scenes if recipe.expert_width else ()
    return RT1TabletopRecipe(**settings, network=network, views=views, sentences=0, scenes=scenes)


def train_rt2_tabletop(recipe: RT2TabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Record if the data are missing; learn to speak of what to do in `out/speech`, and by an expert to do it in `out/arm`, `out/arm-2`, … and `out`, where
    the `model` is in the end; without an expert all is in `out`. What it does and answers in validation scenes lands in each stage's `previews`.

    Raises:
        UnknownNameError, CheckpointError: the base is no vision-language model. DataError: it has no room for so many action tokens.
    """
    from ornstein.hub import fingerprint_of, load
    from ornstein.networks.transformers_backbone import TransformersNetwork
    from ornstein.policies import VisionLanguageModel
    from ornstein.training import begun_stages, main_process_first

    rounds = recipe.scenes if recipe.expert_width else ()
    arms = [out / ("arm" if k == 1 else f"arm-{k}") for k in range(1, len(rounds) + 1)] + [out]
    stages = [out / "speech", *arms] if recipe.expert_width else [out]
    goes_on = begun_stages(stages, resume=resume)
    base, fingerprint = load(recipe.base, expect="vision-language"), fingerprint_of(recipe.base)
    assert isinstance(base, VisionLanguageModel)
    if isinstance(base.network, TransformersNetwork):
        base.network.look_at(RT1Config().image_size)  # as large as episodes are recorded
    with main_process_first():
        examples = RT1Examples.prepare(plan_of(recipe, RT1Config(image_size=base.network.config.image_size)), out)
    result = _learn_to_speak(recipe, base, fingerprint, examples, stages[0], resume=goes_on[stages[0]])
    if not recipe.expert_width:
        return result
    cache, advice = recipe.cache or out / "cache", list[Corrections]()
    for k, (before, arm) in enumerate(zip(stages, arms, strict=False)):
        if k:
            seed, weights = recipe.data_seed + sum(rounds[: k - 1]), advice[-1].failures() if advice else None
            with main_process_first():
                advice.append(corrections(before / "model", recipe.look, rounds[k - 1], seed, cache, weights=weights))
        optimization = recipe.optimization if arm == out else recipe.arm
        model = load(before, expect="rt2").model
        result = _learn_to_move(
            recipe, model, fingerprint, examples, cache, joined(advice), optimization, arm, resume=goes_on[arm]
        )
    return result


def _learn_to_speak(
    recipe: RT2TabletopRecipe, base: VisionLanguageModel, fingerprint: str, examples: RT1Examples, out: Path, *, resume: bool
) -> TrainResult:
    from ornstein.policies import ActingNetwork
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.training import initialise, train

    model = initialise(lambda: begun(recipe, base, examples), recipe.speech.seed)
    assert isinstance(model.network, ActingNetwork)
    speech = RobotSpeech(model.tokenizer, examples.contract, recipe.pointers)
    batches = RT2Batches(recipe, examples, speech)
    return train(
        model.network,
        lambda network, batch, rng: co_fine_tuning_loss(recipe, speech, network, batch, rng),
        batches.at,
        # A frozen token has no gradient, but decay would shrink it all the same.
        recipe.speech if recipe.learning == "all" else replace(recipe.speech, weight_decay=0.0),
        out,
        resume=resume,
        **_described(recipe, speech, model.network, fingerprint, examples),
    )


def _learn_to_move(
    recipe: RT2TabletopRecipe,
    model: VisionLanguageModel,
    fingerprint: str,
    examples: RT1Examples,
    cache: Path,
    advice: Corrections | None,
    optimization: Optimization,
    out: Path,
    *,
    resume: bool,
) -> TrainResult:
    from ornstein.policies import ActingNetwork
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.recipes.rt2_practice import learn_to_move
    from ornstein.training import initialise

    speech, network = RobotSpeech(model.tokenizer, examples.contract), model.network
    assert isinstance(network, ActingNetwork)
    if network.expert is None:
        size = recipe.expert_width, recipe.expert_depth, recipe.expert_dropout
        initialise(lambda: network.add_expert(*size, examples.head, examples.contract), optimization.seed)
    return learn_to_move(
        network,
        speech,
        examples,
        cache,
        advice,
        optimization,
        recipe.place_noise,
        out,
        resume=resume,
        described=_described(recipe, speech, network, fingerprint, examples),
    )


def _described(
    recipe: RT2TabletopRecipe, speech: RobotSpeech, network: ActingNetwork, fingerprint: str, examples: RT1Examples
) -> dict[str, Any]:
    """What the checkpoints of all stages say of themselves."""
    config = asdict(network.acting)
    head = {"head": examples.head} if config["expert_width"] else {}
    return {
        "recipe": "rt2-tabletop",
        "kind": "rt2",
        "config": {
            **config,
            "tokenizer": speech.tokenizer.to_json(),
            "pointers": recipe.pointers,
            **head,
        },
        "hyper_parameters": {
            **asdict(recipe),
            "data": str(recipe.data or ""),
            "also": [str(folder) for folder in recipe.also],
            "cache": str(recipe.cache or ""),
            "base_fingerprint": fingerprint,
            "data_fingerprint": examples.data.fingerprint,
        },
        "contract": examples.contract,
        "preview": lambda changed, step, path: _preview(recipe, speech, examples, changed, path),
        "card": _card(recipe, fingerprint, examples),
    }


def begun(recipe: RT2TabletopRecipe, base: VisionLanguageModel, examples: RT1Examples) -> VisionLanguageModel:
    """What learning starts from; new parameters are drawn from torch's global generator.

    Raises:
        DataError: the data's arm has fewer numbers than should be read. MissingDependencyError: adapters need peft.
    """
    import torch

    from ornstein.policies import ActingNetwork, RT2Network, VisionLanguageModel, speaking_network, with_actions
    from ornstein.recipes.vlm_emoji import order_places

    if recipe.start == "scratch":
        base = VisionLanguageModel(speaking_network(asdict(base.network.config)), base.tokenizer)
        order_places(base.network, base.tokenizer)
    model = with_actions(base, bins=recipe.num_bins, manner=recipe.action_tokens, state_size=recipe.state_size)
    network = model.network
    assert isinstance(network, ActingNetwork)
    known = len(examples.contract.state)
    if recipe.state_size > known:
        raise DataError(f"the arm's state has {known} numbers: give a state_size of {known} at most, not {recipe.state_size}")
    states = torch.from_numpy(examples.data.states[:, : recipe.state_size])
    network.state_mean.copy_(states.mean(0))
    network.state_std.copy_(states.std(0, correction=0).clamp_min(1e-3))
    network.requires_grad_(recipe.learning == "all")
    if isinstance(network, RT2Network):
        network.aids.requires_grad_(requires_grad=False)  # naming was its first stage
    if recipe.learning == "adapters":
        network.adapt(recipe.adapter_rank)
    if recipe.learning != "all":
        _learn_what_is_new(network, model.tokenizer.actions)
    return model


def _learn_what_is_new(network: ActingNetwork, actions: tuple[int, ...]) -> None:
    """The state's way in learns, and of the tokens' vectors those of actions."""
    import torch

    if network.state_in is not None:
        network.state_in.requires_grad_()
    for vectors in network.token_vectors():
        new = torch.zeros(len(vectors), 1)
        new[list(actions)] = 1.0
        vectors.requires_grad_().register_hook(lambda gradient, new=new: gradient * new.to(gradient.device))  # type: ignore[no-untyped-call]


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
    return f"A vision-language model that acts. It began with {begins} and learned from what follows{web}. {data_card(examples.data, sum(recipe.scenes) if recipe.expert_width else 0)}"
