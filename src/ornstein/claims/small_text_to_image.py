"""Text to image in minutes: one drawing in the middle of twelve colours, and a small denoiser.

What experiments on guidance (D7) and on latents against pixels (D6) share. A picture's caption says its name and, three times in four,
its background; place, size and the exact colour are left to the painter, so that one caption has many right pictures. Data, steps,
objective and sampling are the same whatever space a model diffuses in; a training is kept in its folder and goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ornstein.core.checkpoint import read_checkpoint, write_checkpoint
from ornstein.core.progress import track
from ornstein.data.icons import icon_names
from ornstein.data.naming import indefinite
from ornstein.data.scenes import BACKGROUNDS, RESOLUTION, PlacedObject, Scene, render
from ornstein.diffusion import DDIM, ClassifierFreeGuidance, KeyedNoise, NoiseSchedule, ddpm_loss
from ornstein.hub import find_checkpoint
from ornstein.images import load_autoencoder, to_pixels, to_tensor
from ornstein.language import UniversalSentenceEncoder
from ornstein.networks.dit import DiT, DiTConfig, TextCondition
from ornstein.networks.precision import fast_precision
from ornstein.networks.weight_files import load_strictly
from ornstein.training import Optimization, RunFolder, epoch_rows, initialise, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ornstein.diffusion import Prediction
    from ornstein.networks.autoencoder import Autoencoder
    from ornstein.training import Batch

TRAINING_SEED = 0
#: Pixels: how far a drawing stands off the middle at most, and its smallest and largest side.
_SHIFT, _SIZES = 5.0, (68.0, 84.0)
_COLOR_JITTER = 5
#: A caption leaves the background to the painter this often.
_UNSAID = 0.25
_CHUNK = 32
_AVERAGE = "training_state/ema.safetensors"


@dataclass(frozen=True)
class Setting:
    """What a training takes, the same for all that are compared.

    names: of the vocabulary, on every background. scenes: trained on. steps: updates. batch: of the latent model. width, depth: of the
    transformer. snapshots: how many states of a training are kept, the last one among them.
    """

    names: int = 40
    scenes: int = 8000
    steps: int = 2000
    batch: int = 64
    width: int = 160
    depth: int = 6
    snapshots: int = 5


QUICK = Setting(names=4, scenes=8, steps=2, batch=4, width=32, depth=1, snapshots=2)


class Kind(NamedTuple):
    """What a picture shows."""

    name: str
    background: str

    def caption(self, *, says_background: bool = True) -> str:
        subject = indefinite(self.name)
        if not says_background:
            return subject
        return f"{subject} on a {self.background} background".replace("a orange", "an orange")


def kinds(names: int) -> list[Kind]:
    """Every one of so many names on every background."""
    return [Kind(name, ground) for ground in BACKGROUNDS for name in icon_names(names)]


def at_random(names: int, count: int, *, seed: int) -> list[Kind]:
    """`count` kinds, each drawn by itself: what distances between sets of pictures suppose."""
    every, rng = kinds(names), np.random.default_rng([seed, 9])
    return [every[int(k)] for k in rng.integers(len(every), size=count)]


def scene(index: int, shown: Sequence[Kind], *, seed: int) -> Scene:
    """Scene `index` of a stream shows the kinds in turns, each time elsewhere, of another size and colour."""
    rng = np.random.default_rng([seed, index, 8])
    kind = shown[index % len(shown)]
    x, y = RESOLUTION / 2 + rng.uniform(-_SHIFT, _SHIFT, 2)
    drawing = PlacedObject(kind.name, float(x), float(y), float(rng.uniform(*_SIZES)))
    ground = np.clip(np.array(BACKGROUNDS[kind.background]) + rng.integers(-_COLOR_JITTER, _COLOR_JITTER + 1, 3), 0, 255)
    red, green, blue = ground.tolist()
    caption = kind.caption(says_background=bool(rng.random() >= _UNSAID))
    return Scene("single", (drawing,), kind.background, (red, green, blue), caption)


def pictures(count: int, shown: Sequence[Kind], *, seed: int) -> NDArray[np.uint8]:
    """Real ones, RGB uint8 (count, 128, 128, 3)."""
    return np.stack([render(scene(index, shown, seed=seed)) for index in range(count)])


class Space(NamedTuple):
    """What is diffused, and by which network.

    build: () → a denoiser `(x_t, t, TextCondition)` with a buffer `piece_std`. shape: of x_0. prediction: the network's.
    encode: pictures, uint8 → x_0. decode: x_0 → pictures in about [−1, 1], not cut. clip: see `Sampler`. identity: what must be the same
    for a training to be the same.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    prediction: Prediction
    encode: Callable[[NDArray[np.uint8]], Tensor]
    decode: Callable[[Tensor], Tensor]
    identity: dict[str, Any]
    clip: float | None = None
    schedule: NoiseSchedule = NoiseSchedule.cosine()


def latents(setting: Setting) -> Space:
    """The shipped autoencoder's latents, (4, 16, 16), and the transformer of the text-to-image recipe, small."""
    stage = find_checkpoint("autoencoder", expect_kind="autoencoder")
    autoencoder = load_autoencoder(stage)
    config = DiTConfig(width=setting.width, depth=setting.depth)

    side = config.latent_size
    identity = {"network": asdict(config), "autoencoder": stage.fingerprint}
    encode, decode = through(autoencoder)
    return Space("latents", lambda: DiT(config), (4, side, side), "v_prediction", encode, decode, identity)


def through(autoencoder: Autoencoder) -> tuple[Callable[[NDArray[np.uint8]], Tensor], Callable[[Tensor], Tensor]]:
    """Pictures → latents, as the recipe makes them, and latents → pictures, as the pipeline does."""

    @torch.inference_mode()
    def encode(pixels: NDArray[np.uint8]) -> Tensor:
        with fast_precision(torch.device("cpu")):
            return autoencoder.encode(to_tensor(pixels)).float()

    return encode, torch.inference_mode()(autoencoder.decode)


class Data(NamedTuple):
    """Training scenes: rows → x_0, float32; and the captions' word pieces, int32 (scenes, L), −1 beyond the end."""

    x_0: Callable[[NDArray[np.int64]], Tensor]
    pieces: NDArray[np.int32]


def training_data(setting: Setting, space: Space, *, encoded: bool) -> Data:
    """The scenes, encoded once and for all, or batch by batch: pixels as floats would fill the memory."""
    shown, parts, captions = kinds(setting.names), [], []
    starts = range(0, setting.scenes, _CHUNK)
    for start in track(iter(starts), len(starts), f"training scenes, {space.name}"):
        scenes = [scene(i, shown, seed=TRAINING_SEED) for i in range(start, min(start + _CHUNK, setting.scenes))]
        drawn = np.stack([render(one) for one in scenes])
        parts.append(space.encode(drawn).numpy() if encoded else drawn)
        captions += [one.caption for one in scenes]
    whole = np.concatenate(parts)
    ids = UniversalSentenceEncoder().piece_ids(captions, DiTConfig().text_length)
    pieces = ids[:, : int((ids >= 0).sum(1).max())]
    if encoded:
        return Data(lambda rows: torch.from_numpy(whole[rows]), pieces)
    return Data(lambda rows: space.encode(whole[rows]), pieces)


def trained(
    space: Space, data: Data, setting: Setting, folder: Path, *, drop: float, seed: int, batch: int, steps: int
) -> dict[int, nn.Module]:
    """The model's moving average after so many steps, at `setting.snapshots` places; trained in `folder` unless it is there.

    The run's folder says by which settings, so that a claim that was interrupted goes on where it stood and never takes another's run.

    Args:
        drop: share of captions left out, so that there is something to guide away from. Who is dropped at 0.1 is at 0.2, too.

    Raises:
        TrainingDivergedError: the loss or a gradient was not finite.
    """
    optimization = Optimization(
        steps=steps, batch_size=batch, learning_rate=1e-3, warmup_steps=min(100, steps // 4), ema_decay=0.995, seed=seed,
        checkpoint_every=-(-steps // setting.snapshots), keep_checkpoints=setting.snapshots, preview_every=steps,
    )  # fmt: skip
    settings = {
        "space": space.name,
        "prediction": space.prediction,
        "drop": drop,
        "optimization": asdict(optimization),
        "names": setting.names,
        "scenes": setting.scenes,
        **space.identity,
    }
    stamp = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + data.pieces.tobytes()).hexdigest()[:8]
    out = folder / f"{space.name.replace(' ', '-')}-drop-{drop:g}-seed-{seed}-{stamp}"
    if not (out / "model" / "config.json").exists():
        train(
            initialise(lambda: _standardised(space.build(), data), seed),
            loss_of(space),
            lambda indices: _batch(indices, data, seed, drop),
            optimization,
            out,
            recipe=f"{space.name}, drop {drop:g}, seed {seed}",
            kind="claim",
            config=settings,
            card="An experiment.",
            resume=RunFolder(out).begun,
        )
    if (out / "checkpoints").exists():
        _keep_averages(out)
    kept = sorted((out / "snapshots").glob("step-*"))
    return {int(one.name[5:]): load_strictly(space.build(), read_checkpoint(one)).eval() for one in kept}


def _keep_averages(out: Path) -> None:
    """The checkpoints' moving averages, in half precision; then the checkpoints go, which are eight times as large."""
    for folder in sorted((out / "checkpoints").glob("step-*")):
        checkpoint = read_checkpoint(folder)
        tensors = checkpoint.tensors(_AVERAGE)
        write_checkpoint(
            out / "snapshots" / folder.name,
            kind=checkpoint.kind,
            config=checkpoint.config,
            tensors={name: value.astype(np.float16) if value.ndim > 1 else value for name, value in tensors.items()},
            provenance=checkpoint.provenance,
            card="An experiment.",
        )
    shutil.rmtree(out / "checkpoints")


def _standardised(network: Any, data: Data) -> nn.Module:
    few = data.pieces[:4096]
    network.piece_std.copy_(torch.from_numpy(UniversalSentenceEncoder().piece_vectors(few[few >= 0])).std())
    return network


def _batch(indices: NDArray[np.int64], data: Data, seed: int, drop: float) -> Batch:
    rows = epoch_rows(indices, len(data.pieces), seed, 4)
    kept = np.array([np.random.default_rng([seed, i, 5]).random() >= drop for i in indices.tolist()])
    ids = np.where(kept[:, None], data.pieces[rows], -1)
    vectors = UniversalSentenceEncoder().piece_vectors(ids)
    return {"x_0": data.x_0(rows), "pieces": torch.from_numpy(vectors), "mask": torch.from_numpy(ids >= 0)}


def loss_of(space: Space) -> Callable[[nn.Module, Batch, torch.Generator], Tensor]:
    """min-SNR weights, which mean the same whatever is predicted."""

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        condition = TextCondition(batch["pieces"], batch["mask"])
        return ddpm_loss(
            model, batch["x_0"], condition, space.schedule, space.prediction, rng, weighting="min_snr", times="stratified"
        ).loss

    return loss_fn


class Drawn(NamedTuple):
    """Pictures, uint8 (n, side, side, 3), and the share of their numbers that were cut off at black or full colour."""

    pictures: NDArray[np.uint8]
    clipped: float


class Way(NamedTuple):
    """How to draw: the guidance scale, the time steps to guide at (all of them unless given), rescaling φ, DDIM's number of steps."""

    scale: float
    interval: tuple[int, int] | None = None
    rescale: float = 0.0
    steps: int = 20


@torch.inference_mode()
def draw(
    space: Space, network: nn.Module, captions: Sequence[str], numbers: Sequence[int], way: Way, *, seed: int, name: str
) -> Drawn:
    """One picture a caption, from the noise of (seed, number). name: shown with the progress."""
    stepper = DDIM(space.schedule, way.steps, prediction=space.prediction, clip=space.clip)
    parts, beyond = [], 0.0

    def denoise(x_t: Tensor, t: Tensor, condition: TextCondition) -> Tensor:
        with fast_precision(torch.device("cpu")):
            return network(x_t, t, condition)

    starts = range(0, len(captions), _CHUNK)
    for start in track(iter(starts), len(starts), name):
        condition = condition_of(captions[start : start + _CHUNK])
        nothing = TextCondition.empty(1, condition.mask.shape[1])
        guided = ClassifierFreeGuidance(denoise, way.scale, nothing, interval=way.interval, rescale=way.rescale)
        noise = KeyedNoise(seed, numbers[start : start + _CHUNK])
        decoded = space.decode(stepper.sample(guided, noise.initial(space.shape), condition, noise))
        beyond += cut_off(decoded) * len(decoded)
        parts.append(to_pixels(decoded))
    return Drawn(np.concatenate(parts), beyond / len(captions))


def cut_off(decoded: Tensor) -> float:
    """The share of numbers beyond black and full colour."""
    return float((decoded.abs() > 1).float().mean())


def condition_of(captions: Sequence[str]) -> TextCondition:
    """Captions as a denoiser reads them, padded to the longest."""
    encoder = UniversalSentenceEncoder()
    ids = encoder.piece_ids(list(captions), DiTConfig().text_length)
    ids = ids[:, : max(1, int((ids >= 0).sum(1).max()))]
    return TextCondition(torch.from_numpy(encoder.piece_vectors(ids)), torch.from_numpy(ids >= 0))
