"""How an RT-2's expert practises on what the model understood of each frame, worked out once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.recipes.rt1_practice import Practice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ornstein.policies import ActingNetwork
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.recipes.rt1_corrections import Corrections
    from ornstein.recipes.rt1_examples import RT1Examples
    from ornstein.training import Batch, Optimization, TrainResult

_AT_ONCE = 128


def learn_to_move(
    network: ActingNetwork,
    speech: RobotSpeech,
    examples: RT1Examples,
    cache: Path,
    advice: Corrections | None,
    optimization: Optimization,
    place_noise: float,
    out: Path,
    *,
    resume: bool,
    described: dict[str, Any],
) -> TrainResult:
    """The expert learns, the model does not change; with advice, half of each batch is of it.

    Args:
        cache: where what the model understood of each frame is kept. place_noise: see `ornstein.policies.decision_loss`.
    """
    import torch

    from ornstein.policies import decision_loss
    from ornstein.training import main_process_first, train

    network.requires_grad_(requires_grad=False)
    for part in (network.expert, network.head):
        assert part is not None
        part.requires_grad_()
    with main_process_first():
        seen = understood_frames(network, speech, examples, cache)

    def unread(sentences: Sequence[str]) -> tuple[dict[str, int], Tensor]:
        from ornstein.recipes.rt1_examples import READINGS

        return dict.fromkeys(sentences, 0), torch.zeros(1, READINGS, 0)

    practice = Practice(examples, seen, advice, unread, 1, network.acting.state_size, chunk=1, seed=optimization.seed)

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return decision_loss(model, **batch, rng=rng, place_noise=place_noise)  # type: ignore[arg-type]

    return train(network, loss_fn, practice.batch, optimization, out, resume=resume, **described)


def understood_frames(network: ActingNetwork, speech: RobotSpeech, examples: RT1Examples, cache: Path) -> np.ndarray:
    """Of every frame with its episode's instruction, see `ActingNetwork.understand`: float16 (N, 3, D + 2); in `cache` after the first time."""
    from ornstein.networks.weight_files import weights_of

    weights = weights_of(*network.understanding())
    path = cache / f"understood-{examples.data.fingerprint}-{weights}.npy"
    if not path.exists():
        found = _understood(network, speech, examples)
        partial = path.with_suffix(f".partial-{os.getpid()}")
        with partial.open("wb") as file:
            np.save(file, found)
        partial.replace(path)
    return np.asarray(np.load(path, allow_pickle=False))


def _understood(network: ActingNetwork, speech: RobotSpeech, examples: RT1Examples) -> np.ndarray:
    import torch

    from ornstein.core.progress import track
    from ornstein.networks.precision import fast_precision

    asked: dict[int, list[tuple[int, list[int]]]] = {}
    for episode in examples.data.episodes:
        question = speech.question(episode.task)
        asked.setdefault(len(question), []).extend((row, question) for row in range(episode.start, episode.stop))
    # Questions of one length go together, so that none is padded.
    batches = [rows[k : k + _AT_ONCE] for rows in asked.values() for k in range(0, len(rows), _AT_ONCE)]
    found = np.empty((len(examples.data), 3, network.config.width + 2), np.float16)
    states, network = examples.data.states, network.eval()
    with torch.inference_mode(), fast_precision(torch.device("cpu")):
        for batch in track(batches, len(batches), "reading every frame"):
            rows = [row for row, _ in batch]
            pictures = torch.from_numpy(np.stack([examples.windows.pictures[row] for row in rows]))
            seen = network.with_state(network.see(pictures), torch.from_numpy(states[rows]))
            told = torch.tensor([tokens for _, tokens in batch])
            found[rows] = network.understand(seen, told, *speech.places)[0].numpy()
    return found
