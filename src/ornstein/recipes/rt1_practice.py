"""How an arm practises with eyes that no longer change, and what its checkpoints say of themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ornstein.actions import ChunkExecution, action_chunks
from ornstein.core.errors import CheckpointError
from ornstein.policies import RT1
from ornstein.recipes.recorded import SUITE
from ornstein.recipes.rt1_examples import READINGS, RT1Examples, readings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from ornstein.core.types import Policy
    from ornstein.data.joined_datasets import JoinedDatasets
    from ornstein.data.lerobot import LeRobotDataset
    from ornstein.policies import RT1Policy
    from ornstein.recipes.rt1_corrections import Corrections
    from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe
    from ornstein.simulation.tabletop import Scene, TabletopEnv
    from ornstein.training import Batch, Optimization, TrainResult

_PREVIEW_SIZE = 160


def learn_to_act(
    recipe: RT1TabletopRecipe,
    examples: RT1Examples,
    cache: Path,
    optimization: Optimization,
    network: RT1,
    advice: Corrections | None,
    out: Path,
    *,
    resume: bool,
    **description: Any,
) -> TrainResult:
    """A network's eyes no longer change, all else learns; with advice, half of each batch is of it.

    Args:
        cache: where what the eyes saw in each frame is kept. description: what `described` takes.
    """
    from ornstein.policies import decision_loss
    from ornstein.training import main_process_first, train

    for part in network.EYES:
        getattr(network, part).requires_grad_(requires_grad=False)
    with main_process_first():
        practice = practice_of(recipe, examples, network, examples.seen(network, cache), advice)

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return decision_loss(
            model,  # type: ignore[arg-type]
            **batch,
            rng=rng,
            place_noise=recipe.place_noise,
        )

    return train(
        network.train(), loss_fn, practice.batch, optimization, out, resume=resume, **described(recipe, examples, **description)
    )


def practice_of(
    recipe: RT1TabletopRecipe, examples: RT1Examples, network: RT1, seen: np.ndarray, advice: Corrections | None
) -> Practice:
    """With sentences read by that network, in which words are left out."""

    def read(sentences: Sequence[str]) -> tuple[dict[str, int], Tensor]:
        return readings(network, examples, sentences, recipe.word_dropout, recipe.optimization.seed)

    config = network.config
    return Practice(
        examples, seen, advice, read, config.history, config.state_size, chunk=recipe.chunk, seed=recipe.optimization.seed
    )


class Practice:
    """Batches for `decision_loss`: of demonstrations, and every second window of corrections where there are any."""

    def __init__(
        self,
        examples: RT1Examples,
        seen: np.ndarray,
        advice: Corrections | None,
        read: Callable[[Sequence[str]], tuple[dict[str, int], Tensor]],
        history: int,
        state_size: int,
        *,
        chunk: int,
        seed: int,
    ) -> None:
        """
        Args:
            seen: in each frame, (N, tokens, channels). read: see `readings`. history: frames of a window. state_size: numbers of the arm's state
                that are read. chunk: actions that are decided at a time.
        """
        self._examples, self._history, self._state_size, self._seed = examples, history, state_size, seed
        self._demonstrated = seen, examples.data.states, examples.chunks
        sentences = [episode.task for episode in examples.data.episodes]
        self._advised = None
        if advice is not None:
            self._starts, self._episode_of = advice.windows(history)
            self._sentences = [str(sentence) for sentence in advice.sentences]
            self._advised = advice.seen, advice.states, action_chunks(advice.actions, advice.stops, chunk)
            sentences += self._sentences
        self._number, self._read = read(sentences)

    def batch(self, indices: np.ndarray) -> Batch:
        """Window i is a function of (seed, i)."""
        import torch

        if self._advised is None:
            return self._of(self._demonstrated, *self._examples.windows.rows(indices), indices)
        own = indices % 2 == 0
        drawn = [int(np.random.default_rng([self._seed, int(i), 47]).integers(len(self._starts))) for i in indices[~own]]
        rows = self._starts[drawn][:, None] + np.arange(self._history)
        told = [self._sentences[k] for k in self._episode_of[drawn]]
        parts = [
            self._of(self._demonstrated, *self._examples.windows.rows(indices[own]), indices[own]),
            self._of(self._advised, rows, told, indices[~own]),
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _of(
        self, source: tuple[np.ndarray, np.ndarray, np.ndarray], rows: np.ndarray, tasks: Sequence[str], indices: np.ndarray
    ) -> Batch:
        import torch

        seen, states, chunks = source
        # The same number comes again with other words left out.
        reading = indices // 2 % READINGS
        return {
            "seen": torch.from_numpy(seen[rows].astype(np.float32)),
            "words": self._read[[self._number[task] for task in tasks], reading],
            "state": torch.from_numpy(states[rows][..., : self._state_size]),
            "actions": torch.from_numpy(chunks[rows]),
        }


def loaded(run: str | Path) -> RT1:
    """The network of a policy: a shipped name or a folder.

    Raises:
        UnknownNameError, CheckpointError: it is no RT-1 of the small kind.
    """
    from ornstein.hub import load
    from ornstein.policies import RT1Policy

    policy = load(run, expect="rt1")
    assert isinstance(policy, RT1Policy)
    if not isinstance(policy.network, RT1):
        raise CheckpointError(f"{run} is an RT-1 at its published size: here the small one is meant")
    return policy.network.train()


def described(
    recipe: RT1TabletopRecipe,
    examples: RT1Examples,
    *,
    previews: bool = True,
    recipe_name: str = "rt1-tabletop",
    hyper_parameters: Mapping[str, Any] | None = None,
    card: str = "",
) -> dict[str, Any]:
    """What the checkpoints of all stages say of themselves.

    Args:
        recipe_name, hyper_parameters: of another recipe that trains in this manner. card: goes before what is said of the data.
    """

    def preview(model: nn.Module, step: int, path: Path) -> None:
        if previews:
            _preview(model, examples, recipe, path)

    return {
        "recipe": recipe_name,
        "kind": "rt1",
        "config": {**asdict(recipe.network), "head": examples.head, "execution": _execution(recipe)},
        "hyper_parameters": {
            **(asdict(recipe) if hyper_parameters is None else hyper_parameters),
            "data": str(recipe.data or ""),
            "also": [str(folder) for folder in recipe.also],
            "cache": str(recipe.cache or ""),
            "data_fingerprint": examples.data.fingerprint,
        },
        "contract": examples.contract,
        "preview": preview,
        "card": f"{card} {data_card(examples.data, sum(recipe.scenes))}".strip(),
    }


def _execution(recipe: RT1TabletopRecipe) -> dict[str, Any]:
    return {"every": recipe.execute, "ensemble_decay": recipe.ensemble_decay}


def _preview(model: nn.Module, examples: RT1Examples, recipe: RT1TabletopRecipe, path: Path) -> None:
    """The last picture of each validation scene as a contact sheet, named by the success so far and the loss on the expert's steps there."""
    import copy

    from ornstein.evaluation.trials import world_for
    from ornstein.policies import RT1Policy
    from ornstein.simulation.tabletop import suite

    execution, episodes = ChunkExecution(recipe.chunk, **_execution(recipe)), recipe.preview_episodes
    policy = RT1Policy(copy.deepcopy(model), examples.contract, execution=execution)  # type: ignore[arg-type]
    tried = tried_in_validation(policy, episodes)
    env = world_for(examples.contract, suite(SUITE))
    try:
        loss = loss_on_expert(policy, env, tried.scenes, recipe.chunk)
    finally:
        env.close()
    tried.sheet.save(path.with_name(f"{path.stem}-success-{tried.solved}-of-{episodes}-expert-loss-{loss:.3f}{path.suffix}"))


class Tried(NamedTuple):
    """The first validation scenes, how many of them a policy solved, and the last picture of each."""

    scenes: list[Scene]
    solved: int
    sheet: Image


def tried_in_validation(policy: Policy, episodes: int) -> Tried:
    """Let a policy try so many of them."""
    from ornstein.data.pictures import contact_sheet
    from ornstein.evaluation import FIRST_SEEDS
    from ornstein.evaluation.trials import PolicyPlayer, try_scene, world_for
    from ornstein.simulation.tabletop import Replay, suite

    player = PolicyPlayer(policy)
    env, replay = world_for(policy.contract, suite(SUITE)), Replay(image_size=_PREVIEW_SIZE)
    try:
        tried = [try_scene(player, env, FIRST_SEEDS["validation"] + k) for k in range(episodes)]
        last = [replay.pictures(trial.scene, trial.film[-1:])[0] for trial in tried]
    finally:
        env.close()
        replay.close()
    sheet = contact_sheet(np.stack(last), columns=min(10, episodes))
    return Tried([trial.scene for trial in tried], sum(trial.success for trial in tried), sheet)


def loss_on_expert(policy: RT1Policy, env: TabletopEnv, scenes: Sequence[Scene], chunk: int) -> float:
    """The action head's mean loss on what the expert does in scenes, each with one task, that nothing was learned from.

    Where it rises while the loss in training falls, the arm learns scenes by heart.
    """
    import torch

    from ornstein.language import UniversalSentenceEncoder
    from ornstein.policies import decision_loss
    from ornstein.recipes.rt1_corrections import corrected_episode

    network, encoder, rng = policy.network, UniversalSentenceEncoder(), torch.Generator().manual_seed(0)
    assert isinstance(network, RT1)
    total, steps = 0.0, 0
    for number, scene in enumerate(scenes):
        episode = corrected_episode(policy, env, scene, number, policy_share=0.0)
        rows = np.arange(len(episode.seen) - network.config.history + 1)[:, None] + np.arange(network.config.history)
        chunks = action_chunks(episode.actions, np.array([len(episode.actions)]), chunk)
        with torch.inference_mode():
            words = network.read(torch.from_numpy(encoder.read([episode.sentence], network.config.word_pieces)))
            loss, _ = decision_loss(
                network,
                torch.from_numpy(episode.seen[rows].astype(np.float32)),
                words.expand(len(rows), -1),
                torch.from_numpy(episode.states[rows][..., : network.config.state_size]),
                torch.from_numpy(chunks[rows]),
                rng,
                place_noise=0.0,
            )
        total, steps = total + float(loss) * len(rows), steps + len(rows)
    return total / steps


def data_card(data: LeRobotDataset | JoinedDatasets, scenes: int) -> str:
    """What a model learned from, and the drawings' licence.

    Args:
        scenes: in which the expert gave advice.
    """
    advice = f"; and on its advice in {scenes} scenes where this policy acted most of the time" if scenes else ""
    from ornstein.data.joined_datasets import JoinedDatasets

    parts = []
    for one in data.sets if isinstance(data, JoinedDatasets) else (data,):
        provenance = one.provenance
        parts.append(
            f"{len(one.episodes)} demonstrations ({len(one)} frames at {one.info['fps']} Hz) by the scripted expert, scene seeds from"
            f" {provenance.get('seed')} on; a disturbance of three steps begins at a step with chance {provenance.get('noise')};"
            f" {len(provenance.get('failed_seeds', []))} failed episodes left out"
        )
    return (
        f"Trained on {'; '.join(parts)}{advice}. Data fingerprint {data.fingerprint}. The blocks show OpenMoji drawings: these weights are"
        " CC BY-SA 4.0."
    )
