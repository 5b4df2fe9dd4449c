"""Recipe `text-to-image`: a diffusion transformer in the latent space of `autoencoder`. `ornstein train text-to-image`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.checks import require_at_least, require_seeds, require_shares
from ornstein.core.errors import CheckpointError, DataError
from ornstein.diffusion import Prediction, Weighting
from ornstein.networks.autoencoder import DOWNSAMPLING
from ornstein.networks.dit import DiT, DiTConfig, TextCondition
from ornstein.training import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.data.latents import LatentScenes
    from ornstein.data.prepared_pictures import PreparedPictures
    from ornstein.diffusion import NoiseSchedule
    from ornstein.images.text_to_image import TextToImageConfig
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.training import Batch, LossFn, TrainResult

CARD = """Draws what a sentence says, in the latent space of the checkpoint `autoencoder`. Trained on 60,000 captioned scenes of OpenMoji
drawings (stream seed 0) that hold none of the held-out combinations. The drawings are CC BY-SA 4.0 by OpenMoji
(https://openmoji.org), and so are these weights and the pictures that they draw."""

PREVIEW_PROMPTS = (
    "a red apple on a yellow background",
    "a rocket on a black background",
    "a panda on a pink background",
    "a blue fox on a grey background",
    "two strawberries on a white background",
    "a pizza, a key and a guitar on a green background",
    "a pink car above a yellow t-shirt on a black background",
    "a house to the left of an evergreen tree on a sky blue background",
)
_BANDS = 4
# What only one of the two kinds of data has.
OF_SCENES = ("scenes", "pair_share", "count_share", "group_share", "jitter")
_OF_A_FOLDER = ("flip", "finetune_autoencoder", "autoencoder_steps")


def _optimization() -> Optimization:
    return Optimization(
        steps=8000,
        batch_size=128,
        learning_rate=1e-3,
        warmup_steps=200,
        weight_decay=0.01,
        ema_decay=0.999,
        checkpoint_every=200,
        preview_every=800,
    )


@dataclass(frozen=True)
class TextToImageRecipe:
    """Every hyper-parameter of the shipped text-to-image model.

    data: a folder of captioned pictures (docs/own-pictures.md) to train on instead of scenes. flip: each comes mirrored as well.
    finetune_autoencoder: on these pictures first: where the autoencoder falls short on them ("auto"), or "yes", or "no".
    autoencoder_steps: of that. init: name or folder of a text-to-image model whose weights to start from.
    autoencoder: name or folder of the first stage. scenes: how many training scenes are encoded once and for all.
    pair_share, count_share, group_share: how many of them show two objects in a relation, one object several times, or three or four
        different ones; the rest shows one.
    jitter: of the drawings' places and sizes, see `sample_scene`: a network of this size has enough to learn without.
    condition_drop: share of captions replaced by ∅, so that guidance has an unconditional branch (Ho & Salimans 2022).
    weighting: "min_snr" spends less on the last details, which the decoder forgives, and more on what is where.
    prediction: "v_prediction" (Salimans & Ho 2022) under the cosine schedule: well scaled at every noise level.
    """

    network: DiTConfig = field(default_factory=DiTConfig)
    optimization: Optimization = field(default_factory=_optimization)
    autoencoder: str = "autoencoder"
    scenes: int = 60_000
    pair_share: float = 0.3
    count_share: float = 0.12
    group_share: float = 0.13
    data_seed: int = 0
    jitter: float = 0.0
    condition_drop: float = 0.1
    prediction: Prediction = "v_prediction"
    weighting: Weighting = "min_snr"
    data: Path | None = None
    flip: bool = False
    finetune_autoencoder: Literal["auto", "yes", "no"] = "auto"
    autoencoder_steps: int = 300
    init: str = ""

    def __post_init__(self) -> None:
        require_at_least(1, scenes=self.scenes, autoencoder_steps=self.autoencoder_steps)
        require_at_least(0, jitter=self.jitter)
        require_seeds(data_seed=self.data_seed)
        require_shares(condition_drop=self.condition_drop, pair_share=self.pair_share)
        require_shares(count_share=self.count_share, group_share=self.group_share)
        require_shares(more_than_one_object=self.pair_share + self.count_share + self.group_share)
        if self.data is None:
            for name in _OF_A_FOLDER:
                if getattr(self, name) != TextToImageRecipe.__dataclass_fields__[name].default:
                    raise DataError(f"{name} is about pictures of one's own: name their folder too (--data FOLDER)")


def hyper_parameters(recipe: TextToImageRecipe) -> dict[str, Any]:
    """What a run is compared by when it resumes: without what its data do not have, and where they lie."""
    foreign = _OF_A_FOLDER if recipe.data is None else OF_SCENES
    return {
        name: value
        for name, value in asdict(recipe).items()
        if name != "data" and name not in foreign and (name != "init" or recipe.init)
    }


def train_text_to_image(recipe: TextToImageRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Train and export to `out/model`; a sheet of the same eight prompts lands in `out/previews` as training goes on."""
    from ornstein.diffusion import NoiseSchedule
    from ornstein.hub import find_checkpoint
    from ornstein.images import TextToImageConfig
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.recipes.own_pictures import stage_is_under_way
    from ornstein.training import RunFolder, initialise, train

    go_on = resume and not stage_is_under_way(out)
    RunFolder(out).check(resume=go_on)
    first_stage = find_checkpoint(recipe.autoencoder, expect_kind="autoencoder")
    start = _start(recipe, first_stage) if recipe.init else None
    encoder = UniversalSentenceEncoder()
    material = _material(recipe, out, first_stage, encoder, resume=resume)
    schedule = NoiseSchedule.cosine()
    side = recipe.network.latent_size * DOWNSAMPLING
    fingerprint = material.first_stage.fingerprint
    config = TextToImageConfig(recipe.network, schedule.to_json(), recipe.prediction, fingerprint, side)
    result = train(
        initialise(lambda: _network(recipe, material.data, encoder, start), recipe.optimization.seed),
        _loss_fn(recipe, schedule),
        lambda indices: captioned_batch(indices, material.data, encoder, recipe),
        recipe.optimization,
        out,
        recipe="text-to-image",
        kind="text-to-image",
        config=config.to_json(),
        hyper_parameters={
            **hyper_parameters(recipe),
            **material.identity,
            **({"init": start.fingerprint} if start else {}),
        },
        preview=_previewer(config, material),
        card=material.card,
        resume=go_on,
    )
    bring_along(material.first_stage, out / "model")
    return result


class _Material(NamedTuple):
    """What is trained on and over. prompts, above: of the previews. identity: of the data, kept with the hyper-parameters."""

    first_stage: Checkpoint
    data: LatentScenes
    card: str = CARD
    prompts: Sequence[str] = PREVIEW_PROMPTS
    above: NDArray[np.uint8] | None = None
    identity: Mapping[str, str] = MappingProxyType({})


def _material(
    recipe: TextToImageRecipe, out: Path, first_stage: Checkpoint, encoder: UniversalSentenceEncoder, *, resume: bool
) -> _Material:
    from ornstein.recipes import own_pictures
    from ornstein.training import main_process_first

    if recipe.data is None:
        with main_process_first():  # the others read what it has written
            return _Material(first_stage, latents_of(recipe, out, first_stage, encoder, None))
    with main_process_first():
        pictures = own_pictures.read_pictures(recipe.data, out, recipe.network, encoder, resume=resume)
    stage, measured = own_pictures.fitting_autoencoder(pictures, first_stage, recipe, out, resume=resume)
    with main_process_first():
        data = latents_of(recipe, out, stage, encoder, pictures)
    prompts, above = own_pictures.preview_cases(pictures, encoder, recipe.network.text_length)
    identity = {"data_fingerprint": pictures.fingerprint}
    return _Material(stage, data, own_pictures.card(pictures, recipe, measured), prompts, above, identity)


def _network(recipe: TextToImageRecipe, data: LatentScenes, encoder: UniversalSentenceEncoder, start: Checkpoint | None) -> DiT:
    import torch

    from ornstein.networks.weight_files import load_strictly

    model = DiT(recipe.network)
    if start is not None:
        return load_strictly(model, start)
    sample = np.unique(np.random.default_rng(0).integers(0, len(data), 4096))
    pieces = data.pieces[sample]
    model.piece_std.copy_(torch.from_numpy(encoder.piece_vectors(pieces[pieces >= 0])).std())
    return model


def _loss_fn(recipe: TextToImageRecipe, schedule: NoiseSchedule) -> LossFn:
    from ornstein.diffusion import ddpm_loss, loss_by_band

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        condition = TextCondition(batch["pieces"], batch["mask"])
        result = ddpm_loss(
            model, batch["latents"], condition, schedule, recipe.prediction, rng, weighting=recipe.weighting, times="stratified"
        )
        # A batch of a few and stratified times leave no band empty; a batch of one would.
        bands = loss_by_band(result, schedule.num_steps, _BANDS) if len(result.t) >= 2 * _BANDS else ()
        return result.loss, {f"loss_band_{k + 1}_of_{_BANDS}": part for k, part in enumerate(bands)}

    return loss_fn


def _start(recipe: TextToImageRecipe, first_stage: Checkpoint) -> Checkpoint:
    """The model to start from, if its weights mean here what they meant there."""
    from ornstein.hub import find_checkpoint
    from ornstein.images.text_to_image import TextToImageConfig

    start = find_checkpoint(recipe.init, expect_kind="text-to-image")
    theirs = TextToImageConfig.from_json(start.config)
    carried = start.path / "autoencoder"
    for what, mine, other in (
        ("network", recipe.network, theirs.network),
        ("prediction", recipe.prediction, theirs.prediction),
        ("autoencoder", first_stage.fingerprint, theirs.autoencoder_fingerprint),
    ):
        if mine != other:
            own = carried if carried.exists() else "autoencoder"
            advice = f"give --autoencoder {own}" if what == "autoencoder" else "train as it was trained"
            raise CheckpointError(f"cannot start from {recipe.init}: its {what} is {other}, this recipe's is {mine}; {advice}")
    return start


def bring_along(first_stage: Checkpoint, model: Path) -> None:
    """A model that can draw wherever its folder goes; the autoencoder that ships with the package need not travel."""
    from accelerate import PartialState

    from ornstein.hub import BUNDLED

    if first_stage.path.parent != BUNDLED and PartialState().is_main_process:
        write_checkpoint(
            model / "autoencoder",
            kind=first_stage.kind,
            config=first_stage.config,
            tensors=first_stage.tensors(),
            provenance=first_stage.provenance,
            card=(first_stage.path / "card.md").read_text(encoding="utf-8"),
        )


def latents_of(
    recipe: TextToImageRecipe,
    out: Path,
    first_stage: Checkpoint,
    encoder: UniversalSentenceEncoder,
    pictures: PreparedPictures | None,
) -> LatentScenes:
    import torch

    from ornstein.data.latents import build_latent_pictures, build_latent_scenes
    from ornstein.images import load_autoencoder, to_tensor
    from ornstein.networks.precision import fast_precision
    from ornstein.training import track

    autoencoder = load_autoencoder(first_stage)

    @torch.inference_mode()
    def encode(pixels: np.ndarray) -> np.ndarray:
        with fast_precision(torch.device("cpu")):
            return autoencoder.encode(to_tensor(pixels)).float().numpy()

    def encode_text(captions: Sequence[str]) -> NDArray[np.int32]:
        return encoder.piece_ids(captions, recipe.network.text_length)

    if pictures is not None:
        return build_latent_pictures(
            out / "cache",
            pixels=pictures.pixels,
            captions=pictures.captions,
            data_fingerprint=pictures.fingerprint,
            autoencoder_fingerprint=first_stage.fingerprint,
            encode=encode,
            encode_text=encode_text,
            flip=recipe.flip,
            track=lambda chunks, total: track(chunks, total, "encoding pictures"),
        )
    rest = max(1.0 - recipe.pair_share - recipe.count_share - recipe.group_share, 0.0)

    return build_latent_scenes(
        out / "cache",
        count=recipe.scenes,
        seed=recipe.data_seed,
        shares={"single": rest, "count": recipe.count_share, "pair": recipe.pair_share, "group": recipe.group_share},
        jitter=recipe.jitter,
        autoencoder_fingerprint=first_stage.fingerprint,
        encode=encode,
        encode_text=encode_text,
        track=lambda chunks, total: track(chunks, total, "encoding scenes"),
    )


def captioned_batch(indices: np.ndarray, data: LatentScenes, encoder: Any, recipe: TextToImageRecipe) -> Batch:
    import torch

    from ornstein.training import epoch_rows

    rows = epoch_rows(indices, len(data), recipe.data_seed, 4)
    kept = np.array([np.random.default_rng([recipe.data_seed, i, 5]).random() >= recipe.condition_drop for i in indices.tolist()])
    ids = np.where(kept[:, None], data.pieces[rows], -1).astype(np.int32)
    # Padding costs a tenth of a step: no longer than the longest caption here.
    ids = ids[:, : max(1, int((ids >= 0).sum(1).max()))]
    return {
        "latents": torch.from_numpy(data.latents[rows].astype(np.float32)),
        "pieces": torch.from_numpy(encoder.piece_vectors(ids)),
        "mask": torch.from_numpy(ids >= 0),
    }


def _previewer(config: TextToImageConfig, material: _Material) -> Callable[[nn.Module, int, Path], None]:
    """Draws the prompts side by side, below their own pictures where there are such."""

    def preview(model: nn.Module, step: int, path: Path) -> None:
        import copy

        from PIL import Image

        from ornstein.images import TextToImagePipeline, load_autoencoder

        pipeline = TextToImagePipeline(copy.deepcopy(model), load_autoencoder(material.first_stage), config)  # type: ignore[arg-type]
        pictures = pipeline(material.prompts, num_inference_steps=25, batch_size=len(material.prompts))
        rows = [list(material.above)] if material.above is not None else []
        rows.append([np.asarray(picture) for picture in pictures])
        Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows])).save(path)

    return preview
