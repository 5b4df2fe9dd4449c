"""From a name or folder to a working model: `ornstein.load("text-to-image")`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ornstein.core.checkpoint import Checkpoint, read_checkpoint
from ornstein.core.errors import CheckpointError, unknown_name

if TYPE_CHECKING:
    from typing import Literal

    import torch

    from ornstein.images import GAN, VAE, EmojiJudge, PixelDiffusion, TextToImagePipeline
    from ornstein.networks.autoencoder import Autoencoder
    from ornstein.policies import ModularPolicy, RT1Policy, RT2Policy, VisionLanguageModel

    Device = str | torch.device

BUNDLED = Path(__file__).parent / "checkpoints"
#: What the package comes with.
SHIPPED = ("autoencoder", "emoji-classifier", "modular-tabletop", "rt1-tabletop", "text-to-image")
KINDS = (
    "autoencoder",
    "text-to-image",
    "emoji-classifier",
    "rt1",
    "rt2",
    "modular",
    "pixel-diffusion",
    "gan",
    "vae",
    "vision-language",
)


def bundled_names() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(config.parent.name for config in BUNDLED.glob("*/config.json"))


@overload
def load(name_or_folder: str | Path, *, expect: Literal["text-to-image"], device: Device = "cpu") -> TextToImagePipeline: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["autoencoder"], device: Device = "cpu") -> Autoencoder: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["emoji-classifier"], device: Device = "cpu") -> EmojiJudge: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["rt1"], device: Device = "cpu") -> RT1Policy: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["rt2"], device: Device = "cpu") -> RT2Policy: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["modular"], device: Device = "cpu") -> ModularPolicy: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["pixel-diffusion"], device: Device = "cpu") -> PixelDiffusion: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["gan"], device: Device = "cpu") -> GAN: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["vae"], device: Device = "cpu") -> VAE: ...
@overload
def load(name_or_folder: str | Path, *, expect: Literal["vision-language"], device: Device = "cpu") -> VisionLanguageModel: ...
@overload
def load(name_or_folder: str | Path, *, expect: str | None = None, device: Device = "cpu") -> Any: ...
def load(name_or_folder: str | Path, *, expect: str | None = None, device: Device = "cpu") -> Any:
    """A ready model, of the class that its kind says: `TextToImagePipeline`, `Autoencoder`, `EmojiJudge`, `RT1Policy`,
    `RT2Policy`, `ModularPolicy`, `PixelDiffusion`, `GAN`, `VAE` or `VisionLanguageModel`.

    Args:
        name_or_folder: a bundled name ("text-to-image"), or a folder: a checkpoint, or a run with one in `model/`.
        expect: refuse other kinds than this one of `KINDS`.
        device: where it computes: "cpu", "cuda", ….

    Raises:
        UnknownNameError: neither; the nearest names are offered.
        CheckpointError: it is damaged, or not of the kind expected.
    """
    checkpoint = find_checkpoint(name_or_folder, expect_kind=expect)
    match checkpoint.kind:
        case "text-to-image":
            if "guidance_range" in checkpoint.config:  # a student, which only jumps
                from ornstein.images import FewStepPipeline

                return FewStepPipeline.from_checkpoint(checkpoint, [BUNDLED / "autoencoder"], device)

            from ornstein.images import TextToImagePipeline

            return TextToImagePipeline.from_checkpoint(checkpoint, [BUNDLED / "autoencoder"], device)
        case "autoencoder":
            from ornstein.images import load_autoencoder

            return load_autoencoder(checkpoint).to(device)
        case "emoji-classifier":
            from ornstein.images import EmojiJudge

            return EmojiJudge.from_checkpoint(checkpoint, device)
        case "rt1":
            from ornstein.policies import RT1Policy

            return RT1Policy.from_checkpoint(checkpoint, device)
        case "rt2":
            from ornstein.policies import RT2Policy

            return RT2Policy.from_checkpoint(checkpoint, device)
        case "modular":
            from ornstein.policies import ModularPolicy

            return ModularPolicy.from_checkpoint(checkpoint, device)
        case "pixel-diffusion":
            from ornstein.images import PixelDiffusion

            return PixelDiffusion.from_checkpoint(checkpoint, device)
        case "gan":
            from ornstein.images import GAN

            return GAN.from_checkpoint(checkpoint, device)
        case "vae":
            from ornstein.images import VAE

            return VAE.from_checkpoint(checkpoint, device)
        case "vision-language":
            from ornstein.policies import VisionLanguageModel

            return VisionLanguageModel.from_checkpoint(checkpoint, device)
        case kind:
            raise CheckpointError(
                f"{checkpoint.path} holds a model of kind {kind!r}, which this ornstein does not know "
                f"(it knows {', '.join(KINDS)}): update ornstein"
            )


def find_checkpoint(name_or_folder: str | Path, *, expect_kind: str | None = None) -> Checkpoint:
    """The verified checkpoint behind a name or folder, its model not built. Arguments and errors as for `load`."""
    if expect_kind is not None and expect_kind not in KINDS:
        raise unknown_name("kind of checkpoint", expect_kind, KINDS)
    checkpoint = read_checkpoint(_folder(name_or_folder))
    if expect_kind is not None and checkpoint.kind != expect_kind:
        fitting = [name for name in bundled_names() if _kind(BUNDLED / name) == expect_kind]
        remedy = f", for instance {' or '.join(fitting)}" if fitting else ""
        raise CheckpointError(
            f"{name_or_folder} holds a model of kind {checkpoint.kind!r}, but one of kind {expect_kind!r} is needed here{remedy}"
        )
    return checkpoint


def _folder(name_or_folder: str | Path) -> Path:
    names = bundled_names()
    try:
        path = Path(name_or_folder).expanduser()
    except RuntimeError as error:  # ~nobody
        raise CheckpointError(f"there is no checkpoint in {str(name_or_folder)!r}: {str(error).lower()}") from error
    if isinstance(name_or_folder, str) and name_or_folder in names:
        return BUNDLED / name_or_folder
    if (path / "config.json").exists():
        return path
    if (path / "model" / "config.json").exists():
        return path / "model"
    steps = sorted(path.glob("checkpoints/step-*"))
    if steps:
        raise CheckpointError(f"the training in {path} is not finished: finish it with --resume, or give {steps[-1]}")
    looks_like_path = isinstance(name_or_folder, Path) or "/" in name_or_folder or path.exists()
    if looks_like_path or not name_or_folder:
        raise CheckpointError(
            f"there is no checkpoint in {str(name_or_folder)!r}: give a folder that holds config.json, "
            f"or a bundled name ({', '.join(names) or 'none is installed'})"
        )
    raise unknown_name("checkpoint", str(name_or_folder), names)


def _kind(folder: Path) -> str | None:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: then it is no suggestion
    return str(kind)
