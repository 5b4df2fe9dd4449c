"""Recipe `text-to-image-fast`: a student of `text-to-image` that draws in one to four steps. `ornstein train text-to-image-fast`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.checks import require_at_least, require_shares
from ornstein.core.errors import CheckpointError, DataError
from ornstein.networks.dit import TextCondition
from ornstein.recipes.text_to_image import OF_SCENES, PREVIEW_PROMPTS, TextToImageRecipe, bring_along, captioned_batch, latents_of
from ornstein.training import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor, nn

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.data.prepared_pictures import PreparedPictures
    from ornstein.images import TextToImageConfig
    from ornstein.networks.dit import DiT
    from ornstein.training import Batch, TrainResult

_ABOUT = """Draws what a sentence says in one to a few steps: a student of {teacher}, distilled by shortcuts over its guided flow
(docs/distillation.md)"""
CARD = (
    _ABOUT
    + """ on captioned scenes of OpenMoji drawings like its own, which hold none of the held-out combinations. The drawings are
CC BY-SA 4.0 by OpenMoji (https://openmoji.org), and so are these weights and the pictures that they draw."""
)
_STEPS_SHOWN = (1, 2, 4)


def _optimization() -> Optimization:
    return Optimization(
        steps=1600,
        batch_size=64,
        learning_rate=5e-4,
        warmup_steps=100,
        weight_decay=0.01,
        ema_decay=0.995,
        checkpoint_every=100,
        preview_every=400,
    )


@dataclass(frozen=True)
class FastTextToImageRecipe:
    """Every hyper-parameter of the few-step student.

    teacher: name or folder of a text-to-image model; the student starts as it, and its autoencoder is the student's.
    data: the folder of captioned pictures that the teacher was trained on; without one the student sees scenes as the teacher did,
    `scenes` of them at most.
    lowest_guidance, highest_guidance: the student learns every scale between them, drawn evenly, as an input.
    finest: steps of the guided teacher's own walk; the student learns jumps of 1, 1/2, 1/4 … of the way, down to two such steps.
    teacher_share: of a batch, at that finest grid; the rest is asked to agree with the student's own shorter jumps.
    """

    optimization: Optimization = field(default_factory=_optimization)
    teacher: str = "text-to-image"
    data: Path | None = None
    scenes: int = 25_000
    lowest_guidance: float = 1.0
    highest_guidance: float = 7.0
    finest: int = 32
    teacher_share: float = 0.25

    def __post_init__(self) -> None:
        require_at_least(1, scenes=self.scenes)
        require_shares(teacher_share=self.teacher_share)
        if not self.lowest_guidance <= self.highest_guidance:
            raise DataError(f"the guidance scales run from {self.lowest_guidance} to {self.highest_guidance}: give them in order")


def train_text_to_image_fast(recipe: FastTextToImageRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Distil and export to `out/model`; sheets of the same prompts in 1, 2 and 4 steps land in `out/previews`."""
    from ornstein.hub import BUNDLED, find_checkpoint
    from ornstein.images import TextToImageConfig, first_stage_of
    from ornstein.language import UniversalSentenceEncoder
    from ornstein.recipes.own_pictures import preview_cases, read_pictures
    from ornstein.training import RunFolder, initialise, main_process_first, train

    RunFolder(out).check(resume=resume)
    checkpoint = find_checkpoint(recipe.teacher, expect_kind="text-to-image")
    theirs = TextToImageConfig.from_json(checkpoint.config)
    _check_teacher(recipe, theirs)
    first_stage = first_stage_of(checkpoint, [BUNDLED / "autoencoder"])
    shown = _data_of(recipe, checkpoint, theirs)
    teacher, encoder = _teacher(checkpoint, theirs), UniversalSentenceEncoder()
    with main_process_first():  # the others read what it has written
        pictures = read_pictures(shown.data, out, theirs.network, encoder, resume=resume) if shown.data else None
        data = latents_of(shown, out, first_stage, encoder, pictures)
    prompts = preview_cases(pictures, encoder, theirs.network.text_length)[0] if pictures else PREVIEW_PROMPTS
    config = replace(theirs, guidance_range=(recipe.lowest_guidance, recipe.highest_guidance))
    loss_fn = _Shortcuts(recipe, theirs, teacher)
    said = {name: value for name, value in asdict(recipe).items() if name != "data"}
    said |= {"teacher": checkpoint.fingerprint, "data_fingerprint": pictures.fingerprint if pictures else None}
    result = train(
        initialise(lambda: _student(teacher), recipe.optimization.seed),
        loss_fn,
        lambda indices: captioned_batch(indices, data, encoder, shown),
        recipe.optimization,
        out,
        recipe="text-to-image-fast",
        kind="text-to-image",
        config=config.to_json(),
        hyper_parameters=said,
        preview=_previewer(config, first_stage, prompts),
        with_average=loss_fn.follow,
        card=_card(recipe, checkpoint, pictures),
        resume=resume,
    )
    bring_along(first_stage, out / "model")
    return result


def _check_teacher(recipe: FastTextToImageRecipe, theirs: TextToImageConfig) -> None:
    if theirs.guidance_range:
        raise CheckpointError(f"{recipe.teacher} is a few-step student itself: distil the model that it was made from")
    if theirs.prediction != "v_prediction":
        raise CheckpointError(f"a student learns jumps from a teacher that predicts 'v_prediction', not {theirs.prediction!r}")


def _data_of(recipe: FastTextToImageRecipe, teacher: Checkpoint, theirs: TextToImageConfig) -> TextToImageRecipe:
    """What the student sees, as a recipe of data: the folder, or scenes as the teacher's own. No caption is dropped: the student needs
    no branch without one.

    Raises:
        DataError: the teacher was trained on a folder, and which is not said.
    """
    said = teacher.provenance.get("hyper_parameters", {})
    if recipe.data is not None:
        return TextToImageRecipe(network=theirs.network, data=recipe.data, flip=bool(said.get("flip")), condition_drop=0.0)
    if "data_fingerprint" in said:
        raise DataError(f"{recipe.teacher} was trained on a folder of pictures: say which, with --data")
    alike = {name: said[name] for name in (*OF_SCENES, "data_seed") if name in said}
    alike["scenes"] = min(recipe.scenes, alike.get("scenes", recipe.scenes))
    return TextToImageRecipe(network=theirs.network, condition_drop=0.0, **alike)


def _card(recipe: FastTextToImageRecipe, teacher: Checkpoint, pictures: PreparedPictures | None) -> str:
    name = f"`{recipe.teacher}` ({teacher.fingerprint})"
    if pictures is None:
        return CARD.format(teacher=name)
    return f"{_ABOUT.format(teacher=name)} on {len(pictures)} pictures (data fingerprint {pictures.fingerprint})."


def _teacher(checkpoint: Checkpoint, config: TextToImageConfig) -> DiT:
    import torch

    from ornstein.networks.dit import DiT
    from ornstein.networks.weight_files import load_strictly

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return load_strictly(DiT(config.network), checkpoint).eval().requires_grad_(requires_grad=False).to(device)


def _student(teacher: DiT) -> nn.Module:
    from ornstein.networks.jumping_dit import JumpingDiT

    student = JumpingDiT(teacher.config)
    student.start_from(teacher)
    return student


class _Shortcuts:
    """The loss: jumps are held against the teacher's, and against those of the student's own moving average."""

    def __init__(self, recipe: FastTextToImageRecipe, config: TextToImageConfig, teacher: DiT) -> None:
        from ornstein.diffusion import NoiseSchedule

        self.recipe, self.teacher, self.schedule = recipe, teacher, NoiseSchedule.from_json(config.schedule)

    def follow(self, average: nn.Module) -> None:
        """Take the targets from this one."""
        self.average = average

    def __call__(self, model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from ornstein.diffusion import Guided, GuidedTeacher, shortcut_loss

        text, device = TextCondition(batch["pieces"], batch["mask"]), batch["latents"].device
        low, high = self.recipe.lowest_guidance, self.recipe.highest_guidance
        scale = low + (high - low) * torch.rand(len(text.mask), generator=rng, device=device)
        result = shortcut_loss(
            lambda x_t, t, s, condition: model(x_t, t, s, *condition),
            lambda x_t, t, s, condition: self.average(x_t, t, s, *condition),
            GuidedTeacher(self.teacher, TextCondition.empty(1, text.mask.shape[1], device)),
            batch["latents"],
            Guided(text, scale),
            self.schedule,
            rng,
            finest=self.recipe.finest,
            teacher_share=self.recipe.teacher_share,
        )
        by_length = {n: result.per_sample.detach()[result.jumps == n].mean() for n in set(result.jumps.tolist())}
        return result.loss, {f"loss_jumps_{n}": mean for n, mean in by_length.items()}


def _previewer(
    config: TextToImageConfig, first_stage: Checkpoint, prompts: Sequence[str]
) -> Callable[[nn.Module, int, Path], None]:
    """Draws the prompts side by side, a row for each number of steps."""

    def preview(model: nn.Module, step: int, path: Path) -> None:
        import copy

        from PIL import Image

        from ornstein.images import FewStepPipeline, load_autoencoder

        pipeline = FewStepPipeline(copy.deepcopy(model), load_autoencoder(first_stage), config)  # type: ignore[arg-type]
        scale = min(max(4.0, config.guidance_range[0]), config.guidance_range[1])
        rows = [pipeline(prompts, num_inference_steps=n, guidance_scale=scale, batch_size=len(prompts)) for n in _STEPS_SHOWN]
        sheet = np.concatenate([np.concatenate([np.asarray(picture) for picture in row], axis=1) for row in rows])
        Image.fromarray(sheet).save(path)

    return preview
