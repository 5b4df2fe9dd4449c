"""The shapes in the networks' signatures are true, checked by beartype in a process of its own (as in tests/diffusion)."""

from __future__ import annotations

import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any


def test_the_annotated_shapes_hold_and_are_checked() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["runs", "refuses"]


def _tour() -> None:
    import beartype
    import torch
    from jaxtyping import TypeCheckError, install_import_hook

    from ornstein.simulation.tabletop import contract  # before the types of gymnasium are needed at run time

    typing.TYPE_CHECKING = True
    with install_import_hook(["ornstein.networks", "ornstein.policies.rt1", "ornstein.images.autoencoding"], "beartype.beartype"):
        from ornstein.images import autoencoding
        from ornstein.networks import autoencoder, classifier, dit, film_convnet
        from ornstein.policies import rt1
    assert beartype is not None

    picture = torch.zeros(2, 3, 32, 32)
    small = autoencoder.AutoencoderConfig(quarter_channels=8, eighth_channels=8, encoder_blocks=1, decoder_blocks=1)
    first_stage = autoencoder.Autoencoder(small)
    pixels = autoencoding.to_pixels(first_stage.decode(first_stage.encode(picture)))
    autoencoding.to_tensor(pixels)
    named = classifier.Classifier(classifier.ClassifierConfig(5, channels=(8, 8, 8), blocks=1))
    named(picture)
    drawer = dit.DiT(dit.DiTConfig(latent_size=8, patch_size=2, width=32, depth=1, heads=2, text_length=6))
    nothing, t = dit.TextCondition.empty(2, 6), torch.tensor([1, 9])
    drawer(torch.zeros(2, 4, 8, 8), t + 0.5, nothing)
    drawer(torch.zeros(2, 4, 8, 8), t, nothing.drop(torch.tensor([True, False])))
    policy = rt1.RT1(
        rt1.RT1Config(image_size=64, history=2, channels=(8, 8), blocks=(1, 1), tokens=2, width=16, depth=1, heads=2),
        {"kind": "regression", "length": 1},
        contract({"front": 64}),
    )
    frames, words = torch.zeros(2, 2, 64, 64, 3, dtype=torch.uint8), torch.zeros(2, 25, 512)
    state = torch.zeros(2, 2, policy.config.state_size)
    policy(frames, words, state)
    print("runs")

    wrong: list[Callable[[], Any]] = [
        lambda: first_stage.encode(torch.zeros(2, 32, 32)),
        lambda: named(torch.zeros(3, 32, 32)),
        lambda: drawer(torch.zeros(2, 4, 8, 8), t[None], nothing),
        lambda: drawer(torch.zeros(3, 4, 8, 8), t, nothing),
        lambda: film_convnet.FiLM(512, 8)(torch.zeros(2, 8, 4, 4), torch.zeros(3, 512)),
        lambda: policy(frames.float(), words, state),
        lambda: policy(frames, words[:1], state),
    ]
    for call in wrong:
        try:
            call()
        except TypeCheckError:
            continue
        raise AssertionError("a wrong shape was accepted")
    print("refuses")


if __name__ == "__main__":
    _tour()
