"""From a name or folder to a working model: `ornstein.load("text-to-image")`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ornstein.core.checkpoint import Checkpoint, foreign_family, foreign_fingerprint, read_checkpoint
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
SHIPPED = ("autoencoder", "emoji-classifier", "modular-tabletop", "rt1-tabletop", "text-to-image", "vlm-emoji")
#: Where the class of each kind is that makes itself of a checkpoint.
_CLASSES = {
    "emoji-classifier": ("ornstein.images", "EmojiJudge"),
    "rt1": ("ornstein.policies", "RT1Policy"),
    "rt2": ("ornstein.policies", "RT2Policy"),
    "modular": ("ornstein.policies", "ModularPolicy"),
    "pixel-diffusion": ("ornstein.images", "PixelDiffusion"),
    "gan": ("ornstein.images", "GAN"),
    "vae": ("ornstein.images", "VAE"),
    "vision-language": ("ornstein.policies", "VisionLanguageModel"),
}
KINDS = ("autoencoder", "text-to-image", *_CLASSES)
#: What else serves where a kind is needed: an RT-2 answers by the vision-language model that it is.
_SERVES = {"vision-language": ("rt2",)}


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
        name_or_folder: a bundled name ("text-to-image"), or a folder: a checkpoint, a run with one in `model/`, or a vision-language model that the
            transformers library saved.
        expect: refuse other kinds than this one of `KINDS`. "vision-language" takes an RT-2 too, and gives the model that answers in it.
        device: where it computes: "cpu", "cuda", ….

    Raises:
        UnknownNameError: neither; the nearest names are offered.
        CheckpointError: it is damaged, or not of the kind expected.
    """
    folder = _folder(name_or_folder)
    if foreign_family(folder) is not None and expect in (None, "vision-language"):
        from ornstein.policies import VisionLanguageModel

        return VisionLanguageModel.from_transformers(folder).requires_grad_(requires_grad=False).to(device)
    checkpoint = find_checkpoint(name_or_folder, expect_kind=expect)
    if checkpoint.kind == "autoencoder":
        from ornstein.images import load_autoencoder

        return load_autoencoder(checkpoint).to(device)
    if checkpoint.kind == "text-to-image":
        name = "FewStepPipeline" if "guidance_range" in checkpoint.config else "TextToImagePipeline"  # a student only jumps
        return getattr(import_module("ornstein.images"), name).from_checkpoint(checkpoint, [BUNDLED / "autoencoder"], device)
    if checkpoint.kind not in _CLASSES:
        raise CheckpointError(
            f"{checkpoint.path} holds a model of kind {checkpoint.kind!r}, which this ornstein does not know "
            f"(it knows {', '.join(KINDS)}): update ornstein"
        )
    module, name = _CLASSES[checkpoint.kind]
    made = getattr(import_module(module), name).from_checkpoint(checkpoint, device)
    return made.model if expect == "vision-language" and checkpoint.kind == "rt2" else made


def find_checkpoint(name_or_folder: str | Path, *, expect_kind: str | None = None) -> Checkpoint:
    """The verified checkpoint behind a name or folder, its model not built. Arguments and errors as for `load`."""
    if expect_kind is not None and expect_kind not in KINDS:
        raise unknown_name("kind of checkpoint", expect_kind, KINDS)
    folder = _folder(name_or_folder)
    family = foreign_family(folder)
    if family is not None:
        raise CheckpointError(
            f"{name_or_folder} holds a {family} model of the transformers library, not a checkpoint of ornstein"
        )
    checkpoint = read_checkpoint(folder)
    if expect_kind is not None and checkpoint.kind not in (expect_kind, *_SERVES.get(expect_kind, ())):
        fitting = [name for name in bundled_names() if _kind(BUNDLED / name) == expect_kind]
        remedy = f", for instance {' or '.join(fitting)}" if fitting else ""
        raise CheckpointError(
            f"{name_or_folder} holds a model of kind {checkpoint.kind!r}, but one of kind {expect_kind!r} is needed here{remedy}"
        )
    return checkpoint


def fingerprint_of(name_or_folder: str | Path) -> str:
    """What tells one model from another, of whatever format. Arguments and errors as for `load`."""
    folder = _folder(name_or_folder)
    return find_checkpoint(folder).fingerprint if foreign_family(folder) is None else foreign_fingerprint(folder)


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
