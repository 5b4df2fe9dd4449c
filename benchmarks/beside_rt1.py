"""A training step of the full-size RT-1 beside the PyTorch re-implementation that people find, robotic-transformer-pytorch, by turns in one process.

    pip install --target peers --no-deps robotic-transformer-pytorch classifier-free-guidance-pytorch einops environs ftfy python-dotenv marshmallow wcwidth
    PYTHONPATH=peers python benchmarks/beside_rt1.py [THREADS]    # writes benchmarks/results/beside_rt1.json

Theirs as its README builds it: a MaxViT, six frames of 224 pixels, two videos a step, float32. Its text encoder would be fetched from the network; a
stand-in gives random vectors instead, and costs nothing. Ours: EfficientNet-B3, six frames of 300 pixels, two videos. All by AdamW.
"""

from __future__ import annotations

import statistics
import sys
import time
import types
from typing import TYPE_CHECKING, Any

import torch
from record import RESULTS, write
from torch.nn import functional

from ornstein.policies import PaperRT1

if TYPE_CHECKING:
    from collections.abc import Callable

VIDEOS, FRAMES, BINS, ROUNDS = 2, 6, 256, 5


def theirs() -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """The network and its loss on a random batch."""
    sys.modules["open_clip"] = types.ModuleType("open_clip")  # imported there, and used for other encoders
    from classifier_free_guidance_pytorch import classifier_free_guidance_pytorch as guidance
    from robotic_transformer_pytorch import RT1, MaxViT

    class StandIn:
        dim_latent, max_text_len = 768, 256

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def embed_text(self, texts: list[str], *, return_text_encodings: bool = False, **_: Any) -> torch.Tensor:
            return torch.randn((len(texts), *([8] if return_text_encodings else []), self.dim_latent))

    guidance.CONDITION_CONFIG["t5"] = StandIn
    vit = MaxViT(num_classes=1000, dim_conv_stem=64, dim=96, dim_head=32, depth=(2, 2, 5, 2), window_size=7)
    model = RT1(vit=vit, num_actions=11, depth=6, heads=8, dim_head=64, cond_drop_prob=0.2)
    video, said = torch.randn(VIDEOS, 3, FRAMES, 224, 224), ["bring me that apple", "please pass the butter"]
    tokens = torch.randint(BINS, (VIDEOS, FRAMES, 11))
    return model, lambda: functional.cross_entropy(model(video, texts=said).flatten(0, 2), tokens.flatten())


def ours(precision: str) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """The same."""
    model = PaperRT1().train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    video, said = torch.rand(VIDEOS, FRAMES, 3, 300, 300), torch.randn(VIDEOS, 1, 512)
    tokens = torch.randint(BINS, (VIDEOS, FRAMES, model.config.action_size))

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits, _ = model(video, said)
        return functional.cross_entropy(logits.float().flatten(0, 2), tokens.flatten())

    return model, loss


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    torch.manual_seed(0)
    ways = {"theirs": theirs(), "ours, float32": ours("fp32"), "ours, bfloat16": ours("bf16")}
    optimizers = {name: torch.optim.AdamW(model.parameters(), 1e-4) for name, (model, _) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, (_, loss) in ways.items():
            began = time.perf_counter()
            optimizers[name].zero_grad()
            loss().backward()  # type: ignore[no-untyped-call]
            optimizers[name].step()
            if turn:
                seconds[name].append(time.perf_counter() - began)
            print(name, f"{time.perf_counter() - began:.2f} s", flush=True)
    frames = VIDEOS * FRAMES
    ratios = {
        name: [a / b for a, b in zip(seconds["theirs"], own, strict=True)] for name, own in seconds.items() if name != "theirs"
    }
    write(
        RESULTS / "beside_rt1.json",
        {
            "threads": torch.get_num_threads(),
            "frames_a_step": frames,
            "million_parameters": {name: sum(p.numel() for p in model.parameters()) / 1e6 for name, (model, _) in ways.items()},
            "seconds_a_frame": {
                name: {"median": statistics.median(times) / frames, "all": [one / frames for one in times]}
                for name, times in seconds.items()
            },
            "times_faster": {name: {"median": statistics.median(some), "all": some} for name, some in ratios.items()},
        },
    )


if __name__ == "__main__":
    main()
