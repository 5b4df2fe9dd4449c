"""The finished model: half the size, complete, checked by reading it back."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ornstein.core.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ornstein.core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from ornstein.core.contract import EmbodimentContract


def export_model(
    folder: Path,
    model: nn.Module,
    *,
    kind: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    card: str,
    contract: EmbodimentContract | None = None,
    extra_files: Mapping[str, bytes | Mapping[str, Any]] | None = None,
) -> Checkpoint:
    """Write `model` to be loaded by name or folder; an existing export is replaced at once or not at all.

    Matrices are stored as float16. Vectors stay float32: they are few, and a standard deviation in one could vanish.

    Raises:
        TrainingError: a weight is not finite or does not fit float16.
        CheckpointError: it cannot be written, or does not read back.
    """
    tensors = {name: _narrowed(name, tensor) for name, tensor in model.state_dict().items()}
    write_checkpoint(
        folder,
        kind=kind,
        config=config,
        tensors=tensors,
        provenance=provenance,
        card=card,
        contract=contract,
        extra_files=extra_files,
    )
    checkpoint = read_checkpoint(folder, expect_kind=kind)
    stored = checkpoint.tensors()
    different = [name for name, tensor in tensors.items() if not torch.equal(torch.as_tensor(stored[name]), tensor)]
    if different or set(stored) != set(tensors):
        raise TrainingError(f"the model in {folder} does not read back as it was written: {', '.join(different[:4])}")
    return checkpoint


def describe(provenance: Mapping[str, Any], kind: str, text: str) -> str:
    """A card in markdown: what the model is, and the provenance as a table."""
    recipe = provenance["recipe"]
    title = f"# {recipe}\n\nA checkpoint of kind `{kind}`, trained by `ornstein train {recipe}`.\n"
    rows = [
        f"| {key} | {f'{value:.4g}' if isinstance(value, float) else value} |"
        for key, value in provenance.items()
        if key != "hyper_parameters"
    ]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return "\n".join([title, *([text.strip() + "\n"] if text else []), table, ""])


def machine() -> str:
    """Processor, threads and torch build, in words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")  # Linux alone; elsewhere Python's own words are good
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def origin(command: str) -> dict[str, Any]:
    """What every result says of itself: the command, the commit and the hardware."""
    hardware = {
        "machine": machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    return {"command": command, "commit": source_commit(), "hardware": hardware}


def source_commit() -> str:
    """The commit this package runs from, "…-modified" where it was edited since; "unknown" outside a repository."""
    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(("git", *words), cwd=package, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails where we are installed inside another's repository
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("-modified" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _narrowed(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor
    if not torch.isfinite(tensor).all():
        raise TrainingError(f"cannot export the model: {name} holds a number that is not finite")
    if tensor.ndim < 2:
        return tensor.float()
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if largest > torch.finfo(torch.float16).max:
        raise TrainingError(f"cannot export the model: {name} reaches {largest:.3g}, above float16's largest number 65504")
    return tensor.half()
