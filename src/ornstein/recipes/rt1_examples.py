"""What `rt1-tabletop` learns from: demonstrations, stills, sentences, and what its eyes saw in all of them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ornstein.core.errors import ContractError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from ornstein.core.contract import EmbodimentContract
    from ornstein.data.joined_datasets import JoinedDatasets
    from ornstein.data.lerobot import LeRobotDataset
    from ornstein.data.pointed_views import PointedViews
    from ornstein.data.robot_windows import RobotWindows
    from ornstein.data.spoken_tasks import SpokenTasks
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.policies import RT1, RT1Config
    from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe
    from ornstein.training import Batch

CAMERA = "front"
_AT_ONCE = 256
#: Each sentence is read so many times with other words left out.
READINGS = 8


class RT1Examples(NamedTuple):
    """Everything on disk or in memory, ready to be drawn from."""

    data: LeRobotDataset | JoinedDatasets
    contract: EmbodimentContract
    windows: RobotWindows
    views: PointedViews | None
    spoken: SpokenTasks | None
    encoder: UniversalSentenceEncoder
    chunks: np.ndarray
    head: dict[str, Any]

    @classmethod
    def prepare(cls, recipe: RT1TabletopRecipe, out: Path) -> RT1Examples:
        """Recorded, drawn and decoded where they are missing.

        Raises:
            ContractError: the data have no contract, or another body's. DataError: they hold a scene that evaluations use, or numbers
                beyond the contract's bounds.
        """
        from ornstein.actions import UniformBins, action_chunks, describe_head
        from ornstein.data.pointed_views import PointedViews
        from ornstein.data.robot_windows import RobotWindows
        from ornstein.data.spoken_tasks import SpokenTasks
        from ornstein.language import UniversalSentenceEncoder

        data, contract = _demonstrations(recipe, out)
        _, clipped = UniformBins.from_contract(contract).encode(data.actions)
        if clipped:
            raise DataError(
                f"{clipped} numbers in the actions of {data.folder} lie outside the contract's bounds: record them again"
            )
        cache = recipe.cache or out / "cache"
        windows = RobotWindows(data, CAMERA, recipe.network.history, cache, seed=recipe.data_seed, weights=recipe.weights or None)
        size, seed = recipe.network.image_size, recipe.data_seed
        views = PointedViews(recipe.views, cache, size=size, seed=seed, variation=recipe.look) if recipe.views else None
        spoken = SpokenTasks(recipe.sentences, seed=seed) if recipe.sentences else None
        chunks = action_chunks(data.actions, [episode.stop for episode in data.episodes], recipe.chunk)
        head = describe_head(recipe.action_head, chunks, contract, num_bins=recipe.num_bins)
        if head["kind"] == "bins":
            head["smoothing_bins"] = recipe.smoothing_bins
        return cls(data, contract, windows, views, spoken, UniversalSentenceEncoder(), chunks, head)

    def said(self, sentences: Sequence[str], network: RT1Config) -> Tensor:
        """As `RT1.read` takes them."""
        import torch

        return torch.from_numpy(self.encoder.read(sentences, network.word_pieces))

    def names(self) -> Tensor:
        """The encoder's vectors of all names that stills and sentences speak of."""
        import torch

        from ornstein.data.spoken_tasks import speakable_names

        return torch.from_numpy(self.encoder.encode(speakable_names()))

    def network(self, config: RT1Config) -> RT1:
        """Fresh, but for the statistics that standardise what it reads."""
        import torch

        from ornstein.policies import RT1

        model = RT1(config, self.head, self.contract)
        sentences = torch.from_numpy(self.encoder.encode(sorted({episode.task for episode in self.data.episodes})))
        model.reader.vector_mean.copy_(sentences.mean(0))
        model.reader.vector_std.copy_(sentences.std(0, correction=0).clamp_min(1e-4))
        states = torch.from_numpy(self.data.states[:, : config.state_size])
        model.state_mean.copy_(states.mean(0))
        model.state_std.copy_(states.std(0, correction=0).clamp_min(1e-3))
        return model

    def sight_batch(self, indices: np.ndarray, network: RT1Config, stills_each: int) -> Batch:
        """Windows, and so many stills with each, as `rt1_loss` takes them."""
        import torch

        drawn = self.windows.at(indices)
        rows, _ = self.windows.rows(indices)
        batch = {
            "pictures": torch.from_numpy(drawn.pictures),
            "sentence": self.said(drawn.tasks, network),
            "state": torch.from_numpy(drawn.states[..., : network.state_size]),
            "actions": torch.from_numpy(self.chunks[rows]),
            "pointers": torch.from_numpy(drawn.pointers),
            "headings": torch.from_numpy(drawn.headings),
        }
        if self.views is not None:
            stills = self.views.at((indices[:, None] * stills_each + np.arange(stills_each)).ravel())
            for name in ("pictures", "pointers", "headings", "there", "things", "places"):
                batch[f"view_{name}"] = torch.from_numpy(getattr(stills, name))
            batch["view_sentence"] = self.said(stills.sentences, network)
        return batch

    def spoken_batch(self, indices: np.ndarray, network: RT1Config) -> Batch:
        """Sentences, as `reading_loss` takes them."""
        import torch

        assert self.spoken is not None
        spoken = self.spoken.at(indices)
        return {
            "sentence": self.said(spoken.sentences, network),
            "moved": torch.from_numpy(spoken.moved),
            "goal": torch.from_numpy(spoken.goal),
            "skill": torch.from_numpy(spoken.skill),
        }

    def seen(self, network: RT1, cache: Path) -> np.ndarray:
        """What every frame shows with its episode's sentence, float16 (N, tokens, channels); in `cache` after the first time."""
        import torch

        from ornstein.core.progress import track
        from ornstein.networks.weight_files import weights_of

        name = cache / f"seen-{self.data.fingerprint}-{weights_of(network.reader, network.vision, network.token_learner)}.npy"
        if not name.exists():
            rows = [(row, episode.task) for episode in self.data.episodes for row in range(episode.start, episode.stop)]
            found = []
            with torch.inference_mode():
                for start in track(range(0, len(rows), _AT_ONCE), -(-len(rows) // _AT_ONCE), "looking at every frame"):
                    part = rows[start : start + _AT_ONCE]
                    pictures = torch.from_numpy(np.array(self.windows.pictures[start : start + len(part)]))
                    words = network.read(self.said([task for _, task in part], network.config))
                    tokens, _ = network.eval().see(pictures.permute(0, 3, 1, 2).float() / 255, words)
                    found.append(tokens.numpy().astype(np.float16))
            partial = name.with_suffix(f".partial-{os.getpid()}")
            with partial.open("wb") as file:
                np.save(file, np.concatenate(found))
            partial.replace(name)
        return np.asarray(np.load(name, allow_pickle=False))


def readings(
    network: RT1, examples: RT1Examples, sentences: Sequence[str], word_dropout: float, seed: int
) -> tuple[dict[str, int], Tensor]:
    """Each sentence's number, and what is read of it with words left out (sentences, READINGS, language_width)."""
    import torch

    from ornstein.policies import without_words

    different = sorted(set(sentences))
    rng = torch.Generator().manual_seed(seed)
    found = []
    with torch.inference_mode():
        for start in range(0, len(different), _AT_ONCE):
            said = examples.said(different[start : start + _AT_ONCE], network.config)
            found.append(torch.stack([network.read(without_words(said, word_dropout, rng)) for _ in range(READINGS)], dim=1))
    return {sentence: k for k, sentence in enumerate(different)}, torch.cat(found).clone()


def _demonstrations(recipe: RT1TabletopRecipe, out: Path) -> tuple[LeRobotDataset | JoinedDatasets, EmbodimentContract]:
    """The data, recorded if they are missing, and the contract of a policy that sees their front camera, statistics included."""
    from ornstein.data.demonstrations import record_demonstrations
    from ornstein.data.joined_datasets import JoinedDatasets
    from ornstein.data.lerobot import LeRobotDataset
    from ornstein.simulation.tabletop import contract as tabletop_contract

    cameras: dict[str, Any] = {CAMERA: recipe.network.image_size}
    folder = recipe.data or out / "data"
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
    sets = [LeRobotDataset(one) for one in (folder, *recipe.also)]
    for one in sets:
        _check(one)
    data = JoinedDatasets(sets) if recipe.also else sets[0]
    assert data.contract is not None  # checked
    seen = data.contract.seeing((CAMERA,))
    seen.require_match(tabletop_contract(cameras), f"the data in {folder}", "the tabletop")
    return data, seen


def _check(data: LeRobotDataset) -> None:
    """A contract, no scenes of evaluations; what looks odd is said."""
    from ornstein.data.lerobot_summary import statistics_rows, suspicions
    from ornstein.data.recording import FIRST_EVALUATION_SEED

    if data.contract is None:
        raise ContractError(f"{data.folder} has no contract: nobody can tell what its numbers mean; record it with this ornstein")
    for suspicion in suspicions(statistics_rows(data.folder)):
        print(f"look at the data: {suspicion}", file=sys.stderr)
    seeds = [episode.seed for episode in data.episodes if episode.seed is not None and episode.seed >= FIRST_EVALUATION_SEED]
    if seeds:
        raise DataError(f"{data.folder} holds scene {seeds[0]}, and scenes from {FIRST_EVALUATION_SEED} on belong to evaluations")
