"""V5: how a sentence reaches the features of a picture: FiLM at every block, at some, or another way.

The task is pointing: at what a sentence moves and at where it goes, in stills of the tabletop. All networks have the same convolutions, get the same
vector of the sentence from the shipped RT-1's reader, which does not change, and read both places off the last features: nothing but the way in
differs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.claims.comparison import over_runs_and_scenes
from ornstein.claims.drawing import plot
from ornstein.claims.jobs import run_each
from ornstein.claims.outcome import Measure, Outcome, combined
from ornstein.claims.tabletop_trials import fingerprint
from ornstein.networks.attention import Attention
from ornstein.networks.film_convnet import FiLM, FiLMConvNet
from ornstein.training import initialise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ornstein.claims.outcome import Verdict
    from ornstein.data.pointed_views import PointedBatch, PointedViews

CHANNELS, BLOCKS = (32, 64), (1, 3)
EVALUATION_SEED = 17
SEEDS = (0, 1, 2)
_BUDGET = {"steps": 800, "batch": 64, "stills": 20_000, "held_out": 700}
_READER = "rt1-tabletop"
_TOKENS, _HEADS = 4, 4
#: Percentage points by which one may be worse and still counts as good.
_NEAR = 5.0
_POINTERS = 2


class Nothing(nn.Module):
    """The sentence does not come in."""

    def forward(self, h: Tensor, words: Tensor) -> Tensor:
        """h."""
        return h


class Concatenation(nn.Module):
    """The words beside every place's features, mixed by a 1 × 1 convolution that begins as the identity."""

    def __init__(self, words: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels + words, channels, 1)
        with torch.no_grad():
            self.mix.weight.zero_()
            self.mix.bias.zero_()  # type: ignore[union-attr]
            self.mix.weight[:, :channels, 0, 0] = torch.eye(channels)

    def forward(self, h: Tensor, words: Tensor) -> Tensor:
        """(B, C, H, W) and (B, words) → (B, C, H, W)."""
        beside = words[..., None, None].expand(-1, -1, *h.shape[2:])
        mixed: Tensor = self.mix(torch.cat([h, beside.to(h.dtype)], dim=1))
        return mixed


class CrossAttention(nn.Module):
    """Every place attends to a few tokens that are made of the words; what comes of it is added, at first nothing."""

    def __init__(self, words: int, channels: int) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Linear(words, _TOKENS * channels), nn.LayerNorm(channels)
        self.attention, self.out = Attention(channels, _HEADS), nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, words: Tensor) -> Tensor:
        """(B, C, H, W) and (B, words) → (B, C, H, W)."""
        places = h.flatten(2).transpose(1, 2)
        tokens = self.tokens(words).unflatten(-1, (_TOKENS, -1))
        heard = self.out(self.attention(self.norm(places), tokens.to(places.dtype)))
        return h + heard.transpose(1, 2).unflatten(-1, h.shape[2:])


@dataclass(frozen=True)
class WayIn:
    """What stands in each block, by its number, and after the last."""

    module: Callable[[int, int], nn.Module]
    blocks: tuple[int, ...] = (0, 1, 2, 3)
    after: bool = False


WAYS: dict[str, WayIn] = {
    "FiLM": WayIn(FiLM),
    "FiLM without the first block": WayIn(FiLM, (1, 2, 3)),
    "FiLM in the last two blocks": WayIn(FiLM, (2, 3)),
    "FiLM in the last block": WayIn(FiLM, (3,)),
    "concatenation": WayIn(Concatenation),
    "cross-attention": WayIn(CrossAttention),
    "late fusion": WayIn(Concatenation, (), after=True),
    "no language": WayIn(FiLM, ()),
}


class Pointing(nn.Module):
    """Convolutions, a way in for the words, and two maps of where."""

    def __init__(self, way: WayIn, words: int) -> None:
        super().__init__()
        self.vision = FiLMConvNet(CHANNELS, BLOCKS, words)
        blocks = [*self.vision.quarter_blocks, *self.vision.eighth_blocks]
        widths = [CHANNELS[0]] * BLOCKS[0] + [CHANNELS[1]] * BLOCKS[1]
        for k, (block, width) in enumerate(zip(blocks, widths, strict=True)):
            block.film = way.module(words, width) if k in way.blocks else Nothing()
        self.after = way.module(words, CHANNELS[1]) if way.after else Nothing()
        self.maps = nn.Sequential(nn.Conv2d(CHANNELS[1], CHANNELS[1], 1), nn.SiLU(), nn.Conv2d(CHANNELS[1], _POINTERS, 1))

    def forward(self, pictures: Tensor, words: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] and (B, words) → the maps' logits (B, 2, cells)."""
        features = self.after(self.vision(pictures, words), functional.silu(words))
        found: Tensor = self.maps(features).flatten(2)
        return found.float()

    @property
    def language_numbers(self) -> int:
        """Numbers through which the words come in."""
        names = ("film", "after")
        return sum(p.numel() for name, p in self.named_parameters() if any(part in names for part in name.split(".")))


def pointed_right(model: Pointing, stills: PointedBatch, words: Tensor) -> NDArray[np.bool_]:
    """Whether each map is highest within a cell of its pointer, (N, 2)."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(words), 100):
            part = torch.from_numpy(stills.pictures[start : start + 100]).permute(0, 3, 1, 2).float() / 255
            maps = model(part, words[start : start + 100])
            grid = int(maps.shape[-1] ** 0.5)
            best = maps.argmax(-1).numpy()
            place = np.clip(np.floor((stills.pointers[start : start + 100] + 1) / 2 * grid), 0, grid - 1)
            away = np.maximum(np.abs(best // grid - place[..., 1]), np.abs(best % grid - place[..., 0]))
            found.append(away <= 1)
    return np.concatenate(found)


def learn(
    model: Pointing, draw: Callable[[Sequence[int]], tuple[PointedBatch, Tensor]], steps: int, batch: int, seed: int
) -> None:
    """Pointing alone, from `draw`, which gives the stills of these numbers and what was read of their sentences."""
    from ornstein.policies import pointing_loss

    optimizer = torch.optim.AdamW(model.parameters(), 1.5e-3, betas=(0.9, 0.99), weight_decay=0.02)
    there, nowhere = torch.ones(batch, _POINTERS), torch.full((batch, _POINTERS), -30.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        stills, words = draw(range(batch * (step + seed * steps), batch * (step + seed * steps + 1)))
        pictures = torch.from_numpy(stills.pictures).permute(0, 3, 1, 2).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            maps = model(pictures, words)
        loss = pointing_loss(maps, nowhere, torch.from_numpy(stills.pointers), there)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def conditioning(folder: Path, quick: bool) -> Outcome:
    """V5. Every way in, three trainings each, on the same stills in the same order; judged on stills of other scenes."""
    seeds, workers = (SEEDS[:1], 1) if quick else (SEEDS, os.cpu_count() or 1)
    ways = ("FiLM", "no language") if quick else tuple(WAYS)
    budget = {"steps": 2, "batch": 4, "stills": 20, "held_out": 8} if quick else _BUDGET
    _stills(folder, budget)  # drawn once, before several read them
    jobs = [
        {"way": way, "seed": seed, "folder": str(folder), "budget": budget, "reader": fingerprint(_READER)}
        for way in ways
        for seed in seeds
    ]
    found = run_each(learn_to_point, jobs, folder / "found", "ways in", workers)
    by_way = {way: found[k * len(seeds) : (k + 1) * len(seeds)] for k, way in enumerate(ways)}
    right = {way: np.array([one["right"] for one in runs]) for way, runs in by_way.items()}
    parts = judge_parts(right)
    return Outcome(
        combined(parts),
        "; ".join(f"{part}: {verdict}" for part, verdict in parts.items()),
        (
            *(_share(f"control, {name}" if name == "no language" else name, values) for name, values in right.items()),
            *(
                Measure(f"pointed right, {name}, seed {seed}", 100 * float(np.mean(one["right"])), n=len(one["right"]), unit="%")
                for name, runs in by_way.items()
                for seed, one in zip(seeds, runs, strict=True)
            ),
            *(Measure(f"numbers through which the words come in, {name}", runs[0]["numbers"]) for name, runs in by_way.items()),
        ),
        (EVALUATION_SEED, *seeds),
        {"Pointed right, in per cent, by the number of blocks with FiLM": _by_blocks(right)},
        budget,
    )


def learn_to_point(way: str, seed: int, folder: str, budget: dict[str, int], reader: str) -> dict[str, Any]:
    """One training, and what it points at in stills that none has seen.

    Args:
        reader: fingerprint of the policy whose reader it is, so that results are never taken for those of another.

    Returns:
        right: of each still, the share of the pointers of all its sentences that are right. numbers: through which the words come in.
    """
    train, test = _stills(Path(folder), budget)
    read, width = _reader()
    model = initialise(lambda: Pointing(WAYS[way], width), seed)

    def draw(indices: Sequence[int]) -> tuple[PointedBatch, Tensor]:
        stills = train.at(np.asarray(indices))
        return stills, read(stills.sentences)

    learn(model, draw, budget["steps"], budget["batch"], seed)
    held_out, still_of = test.whole()
    both = pointed_right(model, held_out, read(held_out.sentences)).mean(1)
    right = np.bincount(still_of, both) / np.bincount(still_of)
    return {"right": right.tolist(), "numbers": model.language_numbers}


def _stills(folder: Path, budget: dict[str, int]) -> tuple[PointedViews, PointedViews]:
    """To learn from, and of other scenes to be judged by; drawn where they are missing."""
    from ornstein.data.pointed_views import PointedViews
    from ornstein.simulation.tabletop import Variation

    look = Variation(lights=True, table=True)
    train, test = (
        PointedViews(count, folder / "stills", absent=0, seed=seed, variation=look)
        for count, seed in ((budget["stills"], 0), (budget["held_out"], EVALUATION_SEED))
    )
    return train, test


def judge_parts(right: dict[str, NDArray[np.float64]]) -> dict[str, Verdict]:
    """Of the share of pointers that are right in each run and still, by way in: FiLM against the others, still by still."""

    def lead(other: str) -> tuple[float, float]:
        low, high = over_runs_and_scenes(right["FiLM"], right[other])
        return 100 * low, 100 * high

    def better(other: str) -> Verdict:
        low, high = lead(other)
        return "supported" if low > 0 else "refuted" if high < 0 else "cannot tell"

    def as_good(other: str) -> Verdict:
        low, high = lead(other)
        return "supported" if low > -_NEAR else "refuted" if high < -_NEAR else "cannot tell"

    wanted = {
        "FiLM is better than no language": ("no language", better),
        "as good as concatenation at every block": ("concatenation", as_good),
        "as good as cross-attention at every block": ("cross-attention", as_good),
        "better than late fusion": ("late fusion", better),
        "better at every block than in the last alone": ("FiLM in the last block", better),
    }
    return {part: judge(other) for part, (other, judge) in wanted.items() if other in right}


def _reader() -> tuple[Callable[[Sequence[str]], Tensor], int]:
    """The shipped policy's: sentences → (N, width)."""
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.recipes.rt1_practice import loaded

    network, encoder = loaded(_READER).eval(), UniversalSentenceEncoder()

    def read(sentences: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return network.read(torch.from_numpy(encoder.read(sentences, network.config.word_pieces)))

    return read, network.config.language_width


def _share(name: str, values: NDArray[np.float64]) -> Measure:
    low, high = over_runs_and_scenes(values, np.zeros_like(values))
    return Measure(f"pointed right, {name}", 100 * float(values.mean()), (100 * low, 100 * high), values.size, "%")


def _by_blocks(right: dict[str, NDArray[np.float64]]) -> NDArray[np.uint8]:
    order = ("no language", "FiLM in the last block", "FiLM in the last two blocks", "FiLM without the first block", "FiLM")
    tried = [blocks for blocks, name in enumerate(order) if name in right]
    return plot(
        {"FiLM": (np.array(tried, dtype=np.float64), np.array([100 * right[order[k]].mean() for k in tried]))},
        x="blocks with FiLM, counted from the last",
        y="pointed right (%)",
    )
