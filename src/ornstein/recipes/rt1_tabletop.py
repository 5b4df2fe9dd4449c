"""Recipe `rt1-tabletop`: a small RT-1 that picks up the named block. `ornstein train rt1-tabletop`.

It first lets the scripted expert record its demonstrations (about three minutes), then imitates them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.checks import require_at_least, require_seeds, require_shares
from ornstein.core.errors import ContractError, DataError
from ornstein.policies import RT1, RT1Config
from ornstein.training import Optimization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ornstein.actions import UniformBins
    from ornstein.core.contract import EmbodimentContract
    from ornstein.data.lerobot import LeRobotDataset
    from ornstein.data.robot_windows import Windows
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.training import Batch, TrainResult

_PREVIEW_SIZE = 160


def _optimization() -> Optimization:
    return Optimization(
        steps=4400,
        batch_size=48,
        learning_rate=1.5e-3,
        warmup_steps=150,
        weight_decay=0.02,
        ema_decay=0.997,
        checkpoint_every=200,
        preview_every=500,
    )


@dataclass(frozen=True)
class RT1TabletopRecipe:
    """Every hyper-parameter of the shipped policy.

    data: the demonstrations' folder, recorded if it is missing; `data` in the run's folder unless given.
    episodes, data_seed, disturbance: of the recording; see `ornstein data generate --help`.
    smoothing_bins, attention_supervision, color_jitter: see `ornstein.policies.rt1_loss`.
    preview_episodes: validation scenes that are tried at every preview.
    """

    network: RT1Config = field(default_factory=RT1Config)
    optimization: Optimization = field(default_factory=_optimization)
    data: Path | None = None
    episodes: int = 1500
    data_seed: int = 0
    disturbance: float = 0.15
    smoothing_bins: float = 1.5
    attention_supervision: float = 0.3
    color_jitter: float = 0.1
    preview_episodes: int = 20

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_at_least(1, episodes=self.episodes, preview_episodes=self.preview_episodes)
        require_at_least(0, smoothing_bins=self.smoothing_bins, attention_supervision=self.attention_supervision)
        require_shares(disturbance=self.disturbance, color_jitter=self.color_jitter)


def train_rt1_tabletop(recipe: RT1TabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Record, train, export to `out/model`; the success rate on a few validation scenes lands in `out/previews`."""

    from ornstein.actions import UniformBins
    from ornstein.data.generate import generate_dataset
    from ornstein.data.robot_windows import RobotWindows
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.policies import rt1_loss
    from ornstein.training import RunFolder, initialise, main_process_first, train

    RunFolder(out).check(resume=resume)
    folder = recipe.data or out / "data"
    with main_process_first():  # the others read what it has recorded
        if not folder.exists():
            generate_dataset(
                folder,
                episodes=recipe.episodes,
                seed=recipe.data_seed,
                noise=recipe.disturbance,
                image_size=recipe.network.image_size,
            )
        data, contract = _demonstrations(folder, recipe.network.image_size)
        windows = RobotWindows(data, "front", recipe.network.history, out / "cache", seed=recipe.data_seed)
    bins = UniformBins.from_contract(contract, recipe.network.num_bins)
    _, clipped = bins.encode(data.actions)
    if clipped:
        raise DataError(f"{clipped} numbers in the actions of {folder} lie outside the contract's bounds: record them again")
    encoder = UniversalSentenceEncoder()

    def batch_of(indices: np.ndarray) -> Batch:
        return _batch(windows.at(indices), encoder, bins, recipe.network.state_size)

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return rt1_loss(
            model,  # type: ignore[arg-type]
            **batch,
            rng=rng,
            smoothing_bins=recipe.smoothing_bins,
            attention_supervision=recipe.attention_supervision,
            color_jitter=recipe.color_jitter,
        )

    return train(
        initialise(lambda: _network(recipe.network, data, encoder), recipe.optimization.seed),
        loss_fn,
        batch_of,
        recipe.optimization,
        out,
        recipe="rt1-tabletop",
        kind="rt1",
        config=asdict(recipe.network),
        hyper_parameters={**asdict(recipe), "data": str(recipe.data or ""), "data_fingerprint": data.fingerprint},
        contract=contract,
        preview=lambda model, step, path: _preview(model, contract, recipe.preview_episodes, path),
        card=_card(data),
        resume=resume,
    )


def _network(config: RT1Config, data: LeRobotDataset, encoder: UniversalSentenceEncoder) -> RT1:
    """Fresh, but for the statistics that standardise what it reads."""
    import torch

    model = RT1(config)
    sentences = torch.from_numpy(encoder.encode(sorted({episode.task for episode in data.episodes})))
    model.sentence_mean.copy_(sentences.mean(0))
    model.sentence_std.copy_(sentences.std(0).clamp_min(1e-4))
    states = torch.from_numpy(data.states[:, : config.state_size])
    model.state_mean.copy_(states.mean(0))
    model.state_std.copy_(states.std(0).clamp_min(1e-3))
    return model


def _batch(drawn: Windows, encoder: UniversalSentenceEncoder, bins: UniformBins, state_size: int) -> Batch:
    """Windows as `rt1_loss` takes them."""
    import torch

    return {
        "pictures": torch.from_numpy(drawn.pictures),
        "sentence": torch.from_numpy(encoder.encode(drawn.tasks)),
        "state": torch.from_numpy(drawn.states[..., :state_size]),
        "tokens": torch.from_numpy(bins.encode(drawn.actions)[0]),
        "target_pixel": torch.from_numpy(drawn.target_pixels),
    }


def _demonstrations(folder: Path, image_size: int) -> tuple[LeRobotDataset, EmbodimentContract]:
    """The data and their contract, statistics included, if they come from this tabletop and from no scene of an evaluation.

    Raises:
        ContractError: no contract, or another body's. DataError: a scene that evaluations use.
    """
    from ornstein.data.lerobot import LeRobotDataset
    from ornstein.data.recording import FIRST_EVALUATION_SEED
    from ornstein.simulation import contract as tabletop_contract

    data = LeRobotDataset(folder)
    if data.contract is None:
        raise ContractError(f"{folder} has no contract: nobody can tell what its numbers mean; record it with this ornstein")
    data.contract.require_match(tabletop_contract(image_size), f"the data in {folder}", "the tabletop")
    seeds = [episode.seed for episode in data.episodes if episode.seed is not None and episode.seed >= FIRST_EVALUATION_SEED]
    if seeds:
        raise DataError(f"{folder} holds scene {seeds[0]}, and scenes from {FIRST_EVALUATION_SEED} on belong to evaluations")
    return data, data.contract


def _preview(model: nn.Module, contract: EmbodimentContract, episodes: int, path: Path) -> None:
    """The last picture of each validation episode as a contact sheet, named by the success so far."""
    import copy

    from PIL import Image

    from ornstein.evaluation.rollouts import VALIDATION_SEED, rollout
    from ornstein.policies import RT1Policy
    from ornstein.simulation import Replay, TabletopEnv

    policy = RT1Policy(copy.deepcopy(model), contract)  # type: ignore[arg-type]
    env, replay = TabletopEnv(image_size=contract.cameras[0].height), Replay(image_size=_PREVIEW_SIZE)
    try:
        results = [rollout(policy, env, VALIDATION_SEED + k) for k in range(episodes)]
        last = [replay.pictures(result.scene, result.film[-1:])[0] for result in results]
    finally:
        env.close()
        replay.close()
    won = sum(result.success for result in results)
    columns = min(10, episodes)
    last += [np.full_like(last[0], 255)] * (-len(last) % columns)
    rows = [np.concatenate(last[k : k + columns], axis=1) for k in range(0, len(last), columns)]
    Image.fromarray(np.concatenate(rows)).save(path.with_stem(f"{path.stem}-success-{won}-of-{episodes}"))


def _card(data: LeRobotDataset) -> str:
    provenance = data.provenance
    return (
        f"Trained on {len(data.episodes)} demonstrations ({len(data)} frames at {data.info['fps']} Hz) by the scripted expert, scene seeds from"
        f" {provenance.get('seed')} on; a disturbance of two steps begins at a step with chance {provenance.get('noise')}; {len(provenance.get('failed_seeds', []))} failed"
        f" episodes left out. Data fingerprint {data.fingerprint}. The blocks show OpenMoji drawings: these weights are CC BY-SA 4.0."
    )
