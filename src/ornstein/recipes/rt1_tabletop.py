"""Recipe `rt1-tabletop`: a small RT-1 that does all eight skills of the tabletop. `ornstein train rt1-tabletop`.

It first lets the scripted expert record its demonstrations (a quarter of an hour on one core) and draws stills for pointing (five minutes).
Then it learns to see, and with the eyes fixed, to act: what each frame showed is computed once, so that the arm practises on it many times.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
    from ornstein.data.pointed_views import PointedViews
    from ornstein.data.robot_windows import RobotWindows
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.training import Batch, TrainResult

CAMERA = "front"
_PREVIEW_SIZE = 160
_PREVIEW_SUITE = "all"
_SEEN_AT_ONCE = 256


def _sight() -> Optimization:
    return Optimization(
        steps=3000,
        batch_size=32,
        learning_rate=1.5e-3,
        warmup_steps=150,
        weight_decay=0.02,
        ema_decay=0.995,
        checkpoint_every=250,
        preview_every=1000,
    )


def _optimization() -> Optimization:
    return Optimization(
        steps=8000,
        batch_size=512,
        learning_rate=1e-3,
        warmup_steps=150,
        weight_decay=0.02,
        ema_decay=0.998,
        checkpoint_every=250,
        preview_every=2000,
    )


@dataclass(frozen=True)
class RT1TabletopRecipe:
    """Every hyper-parameter of the policy.

    sight: of the first stage, eyes and arm together; optimization: of the second, the arm alone.
    data: the demonstrations' folder, recorded if it is missing; `data` in the run's folder unless given.
    episodes, data_seed, disturbance, vary, plain: of the recording; see `ornstein data generate --help`. views: stills for pointing, each with
    four sentences; a window brings one along. 0: none. cache: where decoded pictures and stills are kept; `cache` in the run's folder.
    smoothing_bins, pointing, color_jitter, place_noise: see `ornstein.policies.rt1_loss` and `decision_loss`.
    preview_episodes: validation scenes that are tried at every preview.
    """

    network: RT1Config = field(default_factory=RT1Config)
    sight: Optimization = field(default_factory=_sight)
    optimization: Optimization = field(default_factory=_optimization)
    data: Path | None = None
    cache: Path | None = None
    episodes: int = 6000
    data_seed: int = 0
    disturbance: float = 0.05
    vary: tuple[Literal["lights", "table", "camera", "sizes"], ...] = ("lights", "table")
    plain: bool = True
    views: int = 20_000
    smoothing_bins: float = 1.5
    pointing: float = 0.3
    color_jitter: float = 0.1
    place_noise: float = 0.01
    preview_episodes: int = 40

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_at_least(1, episodes=self.episodes, preview_episodes=self.preview_episodes)
        require_at_least(0, smoothing_bins=self.smoothing_bins, pointing=self.pointing, views=self.views)
        require_at_least(0, place_noise=self.place_noise)
        require_shares(disturbance=self.disturbance, color_jitter=self.color_jitter)


def train_rt1_tabletop(recipe: RT1TabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Record, learn to see in `out/sight`, learn to act, export to `out/model`; the success rate on a few validation scenes lands in
    `previews` of each."""
    from ornstein.actions import UniformBins
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.training import RunFolder, main_process_first

    eyes = out / "sight"
    acting = RunFolder(out).begun
    RunFolder(eyes).check(resume=resume)
    RunFolder(out).check(resume=resume and acting)
    with main_process_first():  # the others read what it has recorded
        data, contract = _demonstrations(recipe, recipe.data or out / "data")
        windows, views = _examples(recipe, data, recipe.cache or out / "cache")
    bins = UniformBins.from_contract(contract, recipe.network.num_bins)
    _, clipped = bins.encode(data.actions)
    if clipped:
        raise DataError(f"{clipped} numbers in the actions of {data.folder} lie outside the contract's bounds: record them again")
    examples = _Examples(data, contract, windows, views, UniversalSentenceEncoder(), bins)
    # Finished eyes are resumed too, which compares them with the recipe and takes no step.
    _learn_to_see(recipe, examples, eyes, resume=resume)
    return _learn_to_act(recipe, examples, eyes, out, resume=resume and acting)


class _Examples(NamedTuple):
    """What both stages learn from."""

    data: LeRobotDataset
    contract: EmbodimentContract
    windows: RobotWindows
    views: PointedViews | None
    encoder: UniversalSentenceEncoder
    bins: UniformBins


def _learn_to_see(recipe: RT1TabletopRecipe, examples: _Examples, out: Path, *, resume: bool) -> TrainResult:
    from ornstein.policies import PointedTensors, rt1_loss
    from ornstein.training import initialise, train

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        stills = {name: batch[f"view_{name}"] for name in PointedTensors._fields if f"view_{name}" in batch}
        return rt1_loss(
            model,  # type: ignore[arg-type]
            **{name: value for name, value in batch.items() if not name.startswith("view_")},
            rng=rng,
            smoothing_bins=recipe.smoothing_bins,
            pointing=recipe.pointing,
            color_jitter=recipe.color_jitter,
            views=PointedTensors(**stills) if stills else None,
        )

    return train(
        initialise(lambda: _network(recipe.network, examples), recipe.sight.seed),
        loss_fn,
        lambda indices: _batch(indices, examples, recipe.network.state_size),
        recipe.sight,
        out,
        resume=resume,
        **_described(recipe, examples),
    )


def _learn_to_act(recipe: RT1TabletopRecipe, examples: _Examples, eyes: Path, out: Path, *, resume: bool) -> TrainResult:
    """With the eyes of the first stage, which no longer change."""
    import torch

    from ornstein.hub import load
    from ornstein.policies import decision_loss
    from ornstein.training import main_process_first, train

    network = load(eyes, expect="rt1").network
    assert isinstance(network, RT1)
    for part in (network.vision, network.token_learner, network.heading):
        part.requires_grad_(requires_grad=False)
    with main_process_first():
        seen = _seen(network, examples, (recipe.cache or out / "cache") / f"seen-{examples.data.fingerprint}.npy")

    def batch_of(indices: np.ndarray) -> Batch:
        rows, tasks = examples.windows.rows(indices)
        return {
            "seen": torch.from_numpy(seen[rows].astype(np.float32)),
            "sentence": torch.from_numpy(examples.encoder.encode(tasks)),
            "state": torch.from_numpy(examples.data.states[rows][..., : recipe.network.state_size]),
            "tokens": torch.from_numpy(examples.bins.encode(examples.data.actions[rows])[0]),
        }

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return decision_loss(
            model,  # type: ignore[arg-type]
            **batch,
            rng=rng,
            smoothing_bins=recipe.smoothing_bins,
            place_noise=recipe.place_noise,
        )

    return train(network.train(), loss_fn, batch_of, recipe.optimization, out, resume=resume, **_described(recipe, examples))


def _described(recipe: RT1TabletopRecipe, examples: _Examples) -> dict[str, Any]:
    """What the checkpoints of both stages say of themselves."""
    return {
        "recipe": "rt1-tabletop",
        "kind": "rt1",
        "config": asdict(recipe.network),
        "hyper_parameters": {
            **asdict(recipe),
            "data": str(recipe.data or ""),
            "cache": str(recipe.cache or ""),
            "data_fingerprint": examples.data.fingerprint,
        },
        "contract": examples.contract,
        "preview": lambda model, step, path: _preview(model, examples.contract, recipe.preview_episodes, path),
        "card": _card(examples.data),
    }


def _seen(network: RT1, examples: _Examples, path: Path) -> np.ndarray:
    """What every frame of the data shows with its episode's sentence, float16 (N, tokens, channels); in `path` after the first time."""
    import torch

    from ornstein.core.progress import track

    name = path.with_stem(f"{path.stem}-{_weights_of(network)}")
    if not name.exists():
        rows = [(row, episode.task) for episode in examples.data.episodes for row in range(episode.start, episode.stop)]
        found = []
        with torch.inference_mode():
            for start in track(range(0, len(rows), _SEEN_AT_ONCE), -(-len(rows) // _SEEN_AT_ONCE), "looking at every frame"):
                part = rows[start : start + _SEEN_AT_ONCE]
                pictures = torch.from_numpy(np.array(examples.windows.pictures[start : start + len(part)]))
                said = torch.from_numpy(examples.encoder.encode([task for _, task in part]))
                tokens, _ = network.eval().see(pictures.permute(0, 3, 1, 2).float() / 255, network.read(said))
                found.append(tokens.numpy().astype(np.float16))
        partial = name.with_suffix(f".partial-{os.getpid()}")
        with partial.open("wb") as file:
            np.save(file, np.concatenate(found))
        partial.replace(name)
    return np.asarray(np.load(name, allow_pickle=False))


def _weights_of(network: RT1) -> str:
    """12 hexadecimal digits of the eyes' weights."""
    digest = hashlib.sha256()
    for part in (network.vision, network.token_learner):
        for tensor in part.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:12]


def _demonstrations(recipe: RT1TabletopRecipe, folder: Path) -> tuple[LeRobotDataset, EmbodimentContract]:
    """The data, recorded if they are missing, and the contract of a policy that sees their front camera, statistics included.

    Raises:
        ContractError: no contract, or another body's. DataError: a scene that evaluations use.
    """
    from ornstein.data.demonstrations import record_demonstrations
    from ornstein.data.lerobot import LeRobotDataset
    from ornstein.data.recording import FIRST_EVALUATION_SEED
    from ornstein.simulation.tabletop import contract as tabletop_contract

    cameras = {CAMERA: recipe.network.image_size}
    if not folder.exists():
        record_demonstrations(
            folder,
            episodes=recipe.episodes,
            seed=recipe.data_seed,
            noise=recipe.disturbance,
            cameras=cameras,
            vary=recipe.vary,
            plain=recipe.plain,
        )
    data = LeRobotDataset(folder)
    if data.contract is None:
        raise ContractError(f"{folder} has no contract: nobody can tell what its numbers mean; record it with this ornstein")
    seen = data.contract.seeing((CAMERA,))
    seen.require_match(tabletop_contract(cameras), f"the data in {folder}", "the tabletop")
    seeds = [episode.seed for episode in data.episodes if episode.seed is not None and episode.seed >= FIRST_EVALUATION_SEED]
    if seeds:
        raise DataError(f"{folder} holds scene {seeds[0]}, and scenes from {FIRST_EVALUATION_SEED} on belong to evaluations")
    return data, seen


def _examples(recipe: RT1TabletopRecipe, data: LeRobotDataset, cache: Path) -> tuple[RobotWindows, PointedViews | None]:
    from ornstein.data.pointed_views import PointedViews
    from ornstein.data.robot_windows import RobotWindows
    from ornstein.simulation.tabletop import Variation

    windows = RobotWindows(data, CAMERA, recipe.network.history, cache, seed=recipe.data_seed)
    if not recipe.views:
        return windows, None
    look: dict[str, Any] = dict.fromkeys(recipe.vary, True)
    size = recipe.network.image_size
    return windows, PointedViews(recipe.views, cache, size=size, seed=recipe.data_seed, variation=Variation(**look))


def _network(config: RT1Config, examples: _Examples) -> RT1:
    """Fresh, but for the statistics that standardise what it reads."""
    import torch

    model = RT1(config)
    sentences = torch.from_numpy(examples.encoder.encode(sorted({episode.task for episode in examples.data.episodes})))
    model.sentence_mean.copy_(sentences.mean(0))
    model.sentence_std.copy_(sentences.std(0, correction=0).clamp_min(1e-4))
    states = torch.from_numpy(examples.data.states[:, : config.state_size])
    model.state_mean.copy_(states.mean(0))
    model.state_std.copy_(states.std(0, correction=0).clamp_min(1e-3))
    return model


def _batch(indices: np.ndarray, examples: _Examples, state_size: int) -> Batch:
    """Windows, and as many stills, as `rt1_loss` takes them."""
    import torch

    drawn = examples.windows.at(indices)
    batch = {
        "pictures": torch.from_numpy(drawn.pictures),
        "sentence": torch.from_numpy(examples.encoder.encode(drawn.tasks)),
        "state": torch.from_numpy(drawn.states[..., :state_size]),
        "tokens": torch.from_numpy(examples.bins.encode(drawn.actions)[0]),
        "pointers": torch.from_numpy(drawn.pointers),
        "headings": torch.from_numpy(drawn.headings),
    }
    if examples.views is not None:
        stills = examples.views.at(indices)
        batch["view_pictures"] = torch.from_numpy(stills.pictures)
        batch["view_sentence"] = torch.from_numpy(examples.encoder.encode(stills.sentences))
        batch["view_pointers"] = torch.from_numpy(stills.pointers)
        batch["view_headings"] = torch.from_numpy(stills.headings)
    return batch


def _preview(model: nn.Module, contract: EmbodimentContract, episodes: int, path: Path) -> None:
    """The last picture of each validation scene as a contact sheet, named by the success so far."""
    import copy

    from ornstein.data.pictures import contact_sheet
    from ornstein.evaluation import FIRST_SEEDS
    from ornstein.evaluation.trials import PolicyPlayer, try_scene, world_for
    from ornstein.policies import RT1Policy
    from ornstein.simulation.tabletop import Replay, suite

    player = PolicyPlayer(RT1Policy(copy.deepcopy(model), contract))  # type: ignore[arg-type]
    env, replay = world_for(contract, suite(_PREVIEW_SUITE)), Replay(image_size=_PREVIEW_SIZE)
    try:
        tried = [try_scene(player, env, FIRST_SEEDS["validation"] + k) for k in range(episodes)]
        last = [replay.pictures(trial.scene, trial.film[-1:])[0] for trial in tried]
    finally:
        env.close()
        replay.close()
    won = sum(trial.success for trial in tried)
    contact_sheet(np.stack(last), columns=min(10, episodes)).save(path.with_stem(f"{path.stem}-success-{won}-of-{episodes}"))


def _card(data: LeRobotDataset) -> str:
    provenance = data.provenance
    return (
        f"Trained on {len(data.episodes)} demonstrations ({len(data)} frames at {data.info['fps']} Hz) by the scripted expert, scene seeds from"
        f" {provenance.get('seed')} on; a disturbance of three steps begins at a step with chance {provenance.get('noise')}; {len(provenance.get('failed_seeds', []))} failed"
        f" episodes left out. Data fingerprint {data.fingerprint}. The blocks show OpenMoji drawings: these weights are CC BY-SA 4.0."
    )
