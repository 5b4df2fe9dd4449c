"""Our EfficientNet beside torchvision's and timm's: the same weights, in each one's naming, must give the same features.

Those packages need torchvision, which stays out of ornstein's own environment; make one for them, say in `peers`:

    python -m venv peers && peers/bin/pip install torch torchvision timm numpy safetensors
    peers/bin/python benchmarks/beside_timm.py write FOLDER      # random weights and features of each
    python benchmarks/beside_timm.py compare FOLDER              # in ornstein's environment

The second command prints the largest difference for each and fails where it exceeds 0.0001 of the features' spread.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

VARIANTS = ("b0", "b3")
LARGEST_SHARE = 1e-4


def shaken(network: Any) -> Any:
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            torch.nn.init.uniform_(module.weight, 1.5, 2.5, generator=generator)
    return network.eval()


def write(folder: Path) -> None:
    """In the peers' environment."""
    import timm
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    pictures = torch.rand(2, 3, 300, 300, generator=torch.Generator().manual_seed(1))
    np.save(folder / "pictures.npy", pictures.numpy())
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        for variant in VARIANTS:
            models = {
                f"torchvision-{variant}": getattr(torchvision.models, f"efficientnet_{variant}")(weights=None),
                f"timm-{variant}": timm.create_model(f"efficientnet_{variant}", pretrained=False),
                f"timm-tf-{variant}": timm.create_model(f"tf_efficientnet_{variant}", pretrained=False),
            }
            for name, model in models.items():
                shaken(model)
                look = model.features if name.startswith("torchvision") else model.forward_features
                np.save(folder / f"{name}.npy", look((pictures - mean) / std).numpy())
                save_file(model.state_dict(), folder / f"{name}.safetensors")
    print(f"torchvision {torchvision.__version__}, timm {timm.__version__}: {folder}")


def compare(folder: Path) -> None:
    """In ornstein's environment."""
    from ornstein.networks.efficientnet import EfficientNet, load_weights

    pictures = torch.from_numpy(np.load(folder / "pictures.npy"))
    failed = False
    for path in sorted(folder.glob("*.safetensors")):
        network = EfficientNet(path.stem.split("-")[-1], padding="same" if "-tf-" in path.stem else "symmetric").eval()  # type: ignore[arg-type]
        load_weights(network, load_file(path))
        expected = torch.from_numpy(np.load(path.with_suffix(".npy")))
        with torch.inference_mode():
            away = float((network(pictures) - expected).abs().max() / expected.std())
        failed |= away > LARGEST_SHARE
        print(f"{path.stem:16} largest difference {away:.1e} of the features' spread")
    if failed:
        raise SystemExit("they differ")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "compare"):
        raise SystemExit(__doc__)
    (write if sys.argv[1] == "write" else compare)(Path(sys.argv[2]))
