"""Recipe `rt1-tabletop`: a small RT-1 that does all eight skills of the tabletop. `ornstein train rt1-tabletop`.

It first lets the scripted expert record its demonstrations (a quarter of an hour on one core) and draws stills for pointing (five minutes).
Then it learns to read, to see, with the eyes fixed to act, and at last from the expert's advice on its own mistakes. What each frame showed is
computed once, so that the arm practises on it many times.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ornstein.actions import ChunkExecution, HeadName
from ornstein.core.checks import require_at_least, require_shares
from ornstein.core.errors import DataError
from ornstein.policies import RT1Config
from ornstein.recipes.recorded import RecordedDemonstrations
from ornstein.recipes.rt1_corrections import Corrections, corrections, joined
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_practice import described, learn_to_act, loaded
from ornstein.training import Optimization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ornstein.training import Batch, TrainResult


def _reading() -> Optimization:
    return Optimization(
        steps=2500,
        batch_size=64,
        learning_rate=1.5e-3,
        warmup_steps=50,
        weight_decay=0.02,
        betas=(0.9, 0.999),
        max_grad_norm=None,
        ema_decay=0.99,
        checkpoint_every=500,
    )


def _sight() -> Optimization:
    return Optimization(
        steps=3000,
        batch_size=16,
        learning_rate=1.5e-3,
        warmup_steps=60,
        weight_decay=0.02,
        ema_decay=0.99,
        checkpoint_every=250,
        preview_every=3000,
    )


def arm_optimization() -> Optimization:
    """How an arm learns."""
    return Optimization(
        steps=6000,
        batch_size=512,
        learning_rate=1e-3,
        warmup_steps=150,
        weight_decay=0.02,
        ema_decay=0.998,
        checkpoint_every=250,
        preview_every=2000,
    )


@dataclass(frozen=True)
class RT1TabletopRecipe(RecordedDemonstrations):
    """Every hyper-parameter of the policy.

    action_head, num_bins: see `ornstein.actions.describe_head`. chunk: actions that are decided at a time. execute, ensemble_decay: how many of
    them are done before the next are decided, see `ornstein.actions.ChunkExecution`.
    reading, sight: of the first two stages; arm: of the third, on demonstrations, and of all rounds of corrections but the last; optimization: of
    the last.
    data, also, weights, cache, episodes, data_seed, disturbance, vary, plain: see `RecordedDemonstrations`. views: stills for pointing, each with
    four sentences and one that asks for what is not there; a window brings `stills` of them along. 0: none. sentences: for learning to read. 0: no such stage.
    scenes: in which the expert corrects the policy, round by round; each round's advice joins that of those before, and asks for a skill the more
    often, the more often it was missed in the round before. None: the last stage is the third, from demonstrations alone.
    smoothing_bins: see `ornstein.actions.BinsHead`. acting, color_jitter, word_dropout, place_noise: see `ornstein.policies.rt1_loss` and `decision_loss`.
    preview_episodes: validation scenes that are tried at every preview.
    """

    network: RT1Config = field(default_factory=lambda: RT1Config(arm="mlp", width=256))
    action_head: HeadName = "uniform-bins"
    num_bins: int = 256
    chunk: int = 1
    execute: int = 1
    ensemble_decay: float | None = None
    reading: Optimization = field(default_factory=_reading)
    sight: Optimization = field(default_factory=_sight)
    arm: Optimization = field(default_factory=arm_optimization)
    optimization: Optimization = field(default_factory=lambda: replace(arm_optimization(), steps=8000))
    views: int = 20_000
    stills: int = 3
    sentences: int = 24_000
    scenes: tuple[int, ...] = (1000, 1000, 1000)
    smoothing_bins: float = 1.5
    acting: float = 0.1
    color_jitter: float = 0.1
    word_dropout: float = 0.2
    place_noise: float = 0.01
    preview_episodes: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, preview_episodes=self.preview_episodes, stills=self.stills)
        require_at_least(0, smoothing_bins=self.smoothing_bins, acting=self.acting, views=self.views, sentences=self.sentences)
        require_at_least(2, num_bins=self.num_bins)
        ChunkExecution(self.chunk, every=self.execute, ensemble_decay=self.ensemble_decay)  # says what is wrong with them
        require_at_least(0, place_noise=self.place_noise)
        if self.scenes and self.chunk > 1:
            raise DataError(
                "the expert corrects one action at a time, and what it says along a policy's own way is no chunk: give --chunk 1, or no --scenes"
            )
        require_at_least(1, **{f"scenes of round {k}": count for k, count in enumerate(self.scenes, 1)})
        require_shares(color_jitter=self.color_jitter, word_dropout=self.word_dropout)


def train_rt1_tabletop(recipe: RT1TabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Record; learn to read in `out/reading`, to see in `out/sight`, to act in `out/arm`, `out/arm-2`, … and `out`, where the `model` is in the
    end; the success rate on a few validation scenes lands in each stage's `previews`."""
    from ornstein.training import begun_stages, main_process_first

    arms = [out / ("arm" if k == 1 else f"arm-{k}") for k in range(1, len(recipe.scenes) + 1)] + [out]
    stages = [*([out / "reading"] if recipe.sentences else []), out / "sight", *arms]
    goes_on = begun_stages(stages, resume=resume)
    with main_process_first():  # the others read what it has recorded
        examples = RT1Examples.prepare(recipe, out)
    # A finished stage is resumed too, which compares it with the recipe and takes no step.
    if recipe.sentences:
        _learn_to_read(recipe, examples, out / "reading", resume=goes_on[out / "reading"])
    _learn_to_see(recipe, examples, out, resume=goes_on[out / "sight"])
    cache, result = recipe.cache or out / "cache", None
    advice: list[Corrections] = []
    for k, (before, arm) in enumerate(zip([out / "sight", *arms], arms, strict=False)):
        if k:
            first = recipe.data_seed + sum(recipe.scenes[: k - 1])
            with main_process_first():
                # What was missed in the last round is asked for the more often in this one.
                weights = advice[-1].failures() if advice else None
                advice.append(corrections(before / "model", recipe.look, recipe.scenes[k - 1], first, cache, weights=weights))
        optimization = recipe.optimization if arm == out else recipe.arm
        result = learn_to_act(recipe, examples, cache, optimization, loaded(before), joined(advice), arm, resume=goes_on[arm])
    assert result is not None
    return result


def _learn_to_read(recipe: RT1TabletopRecipe, examples: RT1Examples, out: Path, *, resume: bool) -> TrainResult:
    """What sentences move and where to, from sentences alone."""
    from ornstein.policies import SpokenTensors, reading_loss
    from ornstein.training import initialise, train

    names = examples.names()

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        spoken = SpokenTensors(**batch)
        loss = reading_loss(model, spoken, names.to(spoken.sentence.device), rng, recipe.word_dropout)  # type: ignore[arg-type]
        return loss, {"reading": loss.detach()}

    network = initialise(lambda: examples.network(recipe.network), recipe.reading.seed)
    network.requires_grad_(requires_grad=False)
    for part in (network.reader, network.aids.naming, network.aids.skill):
        part.requires_grad_()
    return train(
        network,
        loss_fn,
        lambda indices: examples.spoken_batch(indices, recipe.network),
        recipe.reading,
        out,
        resume=resume,
        **described(recipe, examples, previews=False),
    )


def _learn_to_see(recipe: RT1TabletopRecipe, examples: RT1Examples, out: Path, *, resume: bool) -> TrainResult:
    """Eyes and arm together; of the arm no more is wanted than that the eyes see what it needs."""
    from ornstein.policies import PointedTensors, rt1_loss
    from ornstein.training import initialise, train

    names = examples.names()

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        stills = _of("view_", batch)
        return rt1_loss(
            model,  # type: ignore[arg-type]
            **{name: value for name, value in batch.items() if not name.startswith("view_")},
            rng=rng,
            acting=recipe.acting,
            color_jitter=recipe.color_jitter,
            word_dropout=recipe.word_dropout,
            views=PointedTensors(**stills) if stills else None,
            names=names.to(batch["sentence"].device),
        )

    fresh = initialise(lambda: examples.network(recipe.network), recipe.sight.seed)
    network = loaded(out / "reading") if recipe.sentences else fresh
    fixed: list[nn.Module] = [network.aids.naming, network.aids.skill]
    if not recipe.views:
        fixed += [network.aids.thing, network.aids.name]
    if recipe.sentences:  # pictures' few wordings would make it forget what others mean (docs/lab-notes.md)
        fixed.append(network.reader)
    for part in fixed:
        part.requires_grad_(requires_grad=False)
    return train(
        network,
        loss_fn,
        lambda indices: examples.sight_batch(indices, recipe.network, recipe.stills),
        recipe.sight,
        out / "sight",
        resume=resume,
        **described(recipe, examples),
    )


def _of(prefix: str, batch: Batch) -> Batch:
    return {name.removeprefix(prefix): value for name, value in batch.items() if name.startswith(prefix)}
