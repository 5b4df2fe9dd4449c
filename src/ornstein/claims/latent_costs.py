"""What a model of D6 costs: parameters, arithmetic, seconds, memory; and from them the budget that all get."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ornstein.claims.arithmetic import count_flops, peak_bytes
from ornstein.claims.outcome import Measure
from ornstein.claims.small_text_to_image import Setting, Space, Way, draw, kinds, loss_of, pictures
from ornstein.data.scenes import RESOLUTION
from ornstein.hub import find_checkpoint
from ornstein.images import autoencoder_loss, load_autoencoder
from ornstein.networks.dit import TEXT_SIZE
from ornstein.networks.precision import fast_precision
from ornstein.networks.threads import one_thread
from ornstein.recipes.autoencoder import AutoencoderRecipe
from ornstein.training import initialise
from ornstein.training.optimization import Optimization, adamw

if TYPE_CHECKING:
    from collections.abc import Callable

_TOGETHER = 16
_TERA, _MEGA = 1e12, 1e6


@dataclass(frozen=True)
class Costs:
    """Of one model.

    numbers: in what it diffuses. batch, steps: that its budget pays. training, encoding: FLOP of all updates, and of encoding the scenes
    before. update, picture, alone: seconds of one update, of a picture drawn among sixteen and of one drawn alone, a round each. encoded:
    seconds of encoding a scene. training_bytes, drawing_bytes: the most that an update of sixteen pictures holds, and that drawing them does.
    """

    name: str
    parameters: int
    numbers: int
    batch: int
    steps: int
    training: float
    encoding: float
    update: tuple[float, ...]
    picture: tuple[float, ...]
    alone: tuple[float, ...]
    encoded: float
    training_bytes: int
    drawing_bytes: int

    def seconds(self, steps: int, scenes: int) -> float:
        """Of so many updates, with encoding the scenes; from the timings, which were made in turns and do not depend on what else ran."""
        return steps * statistics.median(self.update) + scenes * self.encoded

    def measures(self) -> list[Measure]:
        found = {
            "parameters": (self.parameters / _MEGA, "million"),
            "numbers a picture": (float(self.numbers), ""),
            "updates": (float(self.steps), ""),
            "pictures an update": (float(self.batch), ""),
            "arithmetic of a training": (self.training / _TERA, "TFLOP"),
            "arithmetic of encoding the scenes": (self.encoding / _TERA, "TFLOP"),
            "time of a training a picture": (1000 * statistics.median(self.update) / self.batch, "ms"),
            "time of encoding a picture": (1000 * self.encoded, "ms"),
            f"time a picture drawn among {_TOGETHER}": (1000 * statistics.median(self.picture), "ms"),
            "time a picture drawn alone": (1000 * statistics.median(self.alone), "ms"),
            f"memory of an update of {_TOGETHER} pictures": (self.training_bytes / _MEGA, "MB"),
            f"memory of drawing {_TOGETHER} pictures": (self.drawing_bytes / _MEGA, "MB"),
        }
        return [
            Measure(f"{what}, {self.name}", value, unit=unit)
            for what, (value, unit) in found.items()
            if value or "encoding" not in what
        ]


class Budget(NamedTuple):
    """Pictures an update, updates, FLOP of them all, and FLOP of encoding the scenes before."""

    batch: int
    steps: int
    training: float
    encoding: float = 0.0


def budgets(setting: Setting, spaces: list[Space], length: int) -> dict[str, Budget]:
    """The first space is the autoencoder's: its updates and the encoding of the scenes are what the others may spend, in as many updates.

    Args:
        length: word pieces of a caption.
    """
    first, *others = spaces
    flops = {one.name: count_flops(_updating(one, 2, length)) / 2 for one in spaces}
    a_scene = count_flops(lambda: first.encode(np.zeros((1, RESOLUTION, RESOLUTION, 3), np.uint8)))
    mine = flops[first.name] * setting.batch * setting.steps
    found = {first.name: Budget(setting.batch, setting.steps, mine, float(a_scene * setting.scenes))}
    whole = mine + found[first.name].encoding
    for one in others:
        batch = max(1, round(whole / (setting.steps * flops[one.name])))
        steps = max(setting.snapshots, round(whole / (batch * flops[one.name])))
        found[one.name] = Budget(batch, steps, flops[one.name] * batch * steps)
    return found


def measured_costs(setting: Setting, spaces: list[Space], length: int, way: Way, *, quick: bool) -> dict[str, Costs]:
    """By name; see `budgets`. quick: one round of timing."""
    first, budget = spaces[0], budgets(setting, spaces, length)
    with one_thread():
        updates = _in_turns({one.name: _updating(one, budget[one.name].batch, length) for one in spaces}, quick)
        drawn = _in_turns({one.name: _drawing(one, setting, way, _TOGETHER) for one in spaces}, quick)
        alone = _in_turns({one.name: _drawing(one, setting, way, 1) for one in spaces}, quick)
        shown = pictures(_TOGETHER, kinds(setting.names), seed=0)
        encoded = statistics.median(_in_turns({"": lambda: first.encode(shown)}, quick)[""]) / len(shown)
    return {
        one.name: Costs(
            one.name,
            sum(parameter.numel() for parameter in one.build().parameters()),
            int(np.prod(one.shape)),
            *budget[one.name],
            updates[one.name],
            tuple(seconds / _TOGETHER for seconds in drawn[one.name]),
            alone[one.name],
            encoded if one is first else 0.0,
            _held(_updating(one, _TOGETHER, length)),
            _held(_drawing(one, setting, way._replace(steps=2), _TOGETHER)),
        )
        for one in spaces
    }


def autoencoder_training() -> tuple[float, float]:
    """FLOP and seconds of the shipped autoencoder's own training, which every latent model shares."""
    stage, recipe = find_checkpoint("autoencoder"), AutoencoderRecipe()
    network = load_autoencoder(stage).train()
    settings = {name: getattr(recipe, name) for name in ("latent_noise", "prior_weight", "edge_weight", "equivariance_weight")}

    def step() -> None:
        loss, _ = autoencoder_loss(network, torch.zeros(1, 3, RESOLUTION, RESOLUTION), torch.Generator(), **settings)
        loss.backward()  # type: ignore[no-untyped-call]

    return count_flops(step) * stage.provenance["samples"], float(stage.provenance["seconds"])


def _updating(space: Space, size: int, length: int) -> Callable[[], None]:
    """An update on a batch of that size, as the training loop makes it."""
    network = initialise(space.build, 0).train()
    optimizer = adamw(network, Optimization(1, size, 1e-4), torch.device("cpu"))
    loss_fn, rng = loss_of(space), torch.Generator().manual_seed(0)
    batch = {
        "x_0": torch.randn(size, *space.shape, generator=rng),
        "pieces": torch.randn(size, length, TEXT_SIZE, generator=rng),
        "mask": torch.ones(size, length, dtype=torch.bool),
    }

    def update() -> None:
        with fast_precision(torch.device("cpu")):
            loss = loss_fn(network, batch, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def _drawing(space: Space, setting: Setting, way: Way, count: int) -> Callable[[], object]:
    """So many pictures, decoding included."""
    network, captions = initialise(space.build, 0).eval(), [kinds(setting.names)[0].caption()] * count
    return lambda: draw(space, network, captions, range(count), way, seed=0, name="timing")


def _in_turns(computations: dict[str, Callable[[], object]], quick: bool) -> dict[str, tuple[float, ...]]:
    """Seconds of each, round after round, so that what else the machine does falls on all alike; one round before does not count."""
    rounds = 1 if quick else 7
    seconds: dict[str, list[float]] = {name: [] for name in computations}
    for _ in range(rounds + 1):
        for name, compute in computations.items():
            began = time.perf_counter()
            compute()
            seconds[name].append(time.perf_counter() - began)
    return {name: tuple(values[1:]) for name, values in seconds.items()}


def _held(compute: Callable[[], object]) -> int:
    """Bytes that it holds at most beyond weights and the optimiser's moments, which the first call makes."""
    compute()
    return peak_bytes(compute)
