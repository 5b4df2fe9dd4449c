"""Networks of the diffusers library as our denoisers, loaded strictly. Needs the extra `diffusers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import CheckpointError, DataError, MissingDependencyError
from ornstein.interop.scheduler_config import SchedulerConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_WEIGHTS = "diffusion_pytorch_model.safetensors"


class DiffusersDenoiser:
    """`(x_t, t, condition)` → the network's prediction, with our time steps: its step t − 1 is our t.

    condition: None, or a dictionary of what the network takes beside x_t and t, for example `encoder_hidden_states` or
    `class_labels`; its tensors have the batch first, so that guidance can stack two. Where the network also predicts a variance
    (twice the channels), the mean's half is returned.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x_t: Tensor, t: Tensor, condition: dict[str, Any] | None = None) -> Tensor:
        if condition is not None and not isinstance(condition, dict):
            raise DataError(
                f"a diffusers network takes its condition as a dictionary of named inputs, got {type(condition).__name__}"
            )
        predicted: Tensor = self.network(x_t, t - 1, **(condition or {}), return_dict=False)[0]
        if predicted.shape[1] == 2 * x_t.shape[1]:
            predicted = predicted[:, : x_t.shape[1]]
        return predicted


def load_denoiser(folder: str | Path, device: str | torch.device = "cpu") -> DiffusersDenoiser:
    """The network in a folder that `save_pretrained` wrote (`unet/` or `transformer/` of a pipeline), every weight accounted for.

    Raises:
        MissingDependencyError: diffusers is not installed. CheckpointError: a file is missing or damaged, the class is not a
            diffusers network, or weights are missing, unknown or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = _config(folder)
    network = _build(config, folder)
    path = folder / _WEIGHTS
    if not path.exists():
        raise CheckpointError(f"{folder} holds no {_WEIGHTS}: save the network with safe_serialization=True")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit the configuration beside them: {_one_line(error)}") from error
    return DiffusersDenoiser(network.to(device).eval())


def load_scheduler(folder: str | Path) -> SchedulerConfig:
    """The schedule of a pipeline's folder (or its `scheduler/`), or of the file itself.

    Raises:
        CheckpointError: there is none, or it is not JSON. DataError, UnknownNameError: a value in it is wrong.
    """
    folder = Path(folder)
    places = [folder] if folder.is_file() else [folder / "scheduler_config.json", folder / "scheduler" / "scheduler_config.json"]
    for place in places:
        if place.is_file():
            return SchedulerConfig.from_json(_json(place))
    raise CheckpointError(f"there is no scheduler_config.json in {folder}")


def _build(config: dict[str, Any], folder: Path) -> nn.Module:
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError("reading a diffusers network needs diffusers: pip install 'ornstein[diffusers]'") from error
    name = config.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise CheckpointError(f"{folder / 'config.json'} names no network of diffusers: _class_name is {name!r}")
    try:
        network: nn.Module = kind.from_config(config)  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{name} cannot be built from {folder / 'config.json'}: {_one_line(error)}") from error
    return network


def _config(folder: Path) -> dict[str, Any]:
    place = folder / "config.json"
    if not place.is_file():
        raise CheckpointError(f"{folder} is not a folder of a diffusers network: it has no config.json")
    read = _json(place)
    if not isinstance(read, dict):
        raise CheckpointError(f"{place} holds no configuration")
    return read


def _json(place: Path) -> Any:
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{place} cannot be read: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "…"
