from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from ornstein.core.errors import DataError
from ornstein.networks.efficientnet import EfficientNet, MBConv, load_weights, resolution_of


@pytest.fixture
def b0() -> EfficientNet:
    return _shaken(EfficientNet("b0", language_size=16)).eval()


def _shaken(network: nn.Module) -> nn.Module:
    """Batch norms that do something, so that no part can be left out unseen."""
    g = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=g)
            module.running_var.uniform_(0.5, 1.5, generator=g)
            nn.init.uniform_(module.weight, 1.5, 2.5, generator=g)
            nn.init.normal_(module.bias, 0, 0.2, generator=g)
    return network


@pytest.mark.parametrize(
    ("variant", "numbers", "blocks", "resolution"),
    [("b0", 4_007_548, 16, 224), ("b1", 6_513_184, 23, 240), ("b2", 7_700_994, 23, 260), ("b3", 10_696_232, 26, 300)],
)
def test_sizes_are_the_published_ones(variant: str, numbers: int, blocks: int, resolution: int) -> None:
    """Torchvision's figures (5,288,548; 7,794,184; 9,109,994; 12,233,232) less the classifiers', (features + 1) × 1,000."""
    with torch.device("meta"):
        network = EfficientNet(variant, language_size=4)  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.features.parameters()) == numbers
    classifier = (network.out_channels + 1) * 1000
    assert numbers + classifier in (5_288_548, 7_794_184, 9_109_994, 12_233_232)
    assert len(network.films) == blocks
    assert resolution_of(variant) == resolution  # type: ignore[arg-type]


@pytest.mark.parametrize(("padding", "exceptions", "size"), [("rt1", [], 300), ("rt1", [], 97), ("same", [5, 18], 300)])
def test_it_computes_what_transformers_computes(padding: str, exceptions: list[int], size: int) -> None:
    """B3 with random weights, in its naming; `exceptions` are the blocks that lay no odd zero at 300 pixels."""
    from transformers import EfficientNetConfig, EfficientNetModel

    config = EfficientNetConfig(
        width_coefficient=1.2, depth_coefficient=1.4, image_size=300, hidden_dim=1536, depthwise_padding=exceptions
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = _shaken(EfficientNetModel(config)).eval()
        mine = EfficientNet("b3", language_size=8, padding=padding).eval()  # type: ignore[arg-type]
        pictures = torch.rand(1, 3, size, size)
    load_weights(mine, theirs.state_dict())
    with torch.inference_mode():
        expected = theirs((pictures - mine.mean) / mine.std).last_hidden_state
        found = mine(pictures, torch.ones(1, 8))
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if size == 300:
        assert found.shape[-1] == {"rt1": 9, "same": 10}[padding]


def test_a_sentence_changes_nothing_at_first_and_then_every_block(b0: EfficientNet) -> None:
    plain = EfficientNet("b0").eval()
    load_weights(plain, {name: t for name, t in b0.state_dict().items() if not name.startswith("films.")})
    pictures, sentence = torch.rand(2, 3, 64, 64), torch.randn(2, 16)
    with torch.inference_mode():
        expected = plain(pictures)
        assert torch.equal(b0(pictures, sentence), expected)
    for film in b0.films:
        with torch.no_grad():
            film.project.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
            assert (b0(pictures, sentence) - expected).abs().max() > 1e-6
            film.project.weight.zero_()
    with torch.inference_mode():
        assert torch.equal(b0(pictures, sentence), expected)


def _as_timm(name: str) -> str:
    """Written from timm's documented module names, part by part."""
    top = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.8.0": "conv_head", "features.8.1": "bn2"}
    head, rest = name.rsplit(".", 1)
    if head in top:
        return f"{top[head]}.{rest}"
    match = re.fullmatch(r"features\.(\d)\.(\d+)\.block\.(.+)", head)
    assert match is not None
    first = ["conv_dw bn1", "se", "conv_pw bn2"]
    later = ["conv_pw bn1", "conv_dw bn2", "se", "conv_pwl bn3"]
    place, inner = match[3].split(".")
    part = (first if match[1] == "1" else later)[int(place)]
    inside = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}[inner] if part == "se" else part.split()[int(inner)]
    return f"blocks.{int(match[1]) - 1}.{match[2]}.{inside}.{rest}"


def test_weights_named_as_timm_names_them(b0: EfficientNet) -> None:
    own = {name: t for name, t in b0.state_dict().items() if not name.startswith("films.")}
    timm = {_as_timm(name): t for name, t in own.items()}
    assert len(timm) == len(own)
    assert "blocks.0.0.conv_dw.weight" in timm
    assert "blocks.6.0.se.conv_reduce.bias" in timm
    timm["classifier.weight"] = torch.zeros(1000, 1280)
    for counters in (True, False):  # files from other programs have none
        fresh = EfficientNet("b0", language_size=16)
        load_weights(fresh, {name: t for name, t in timm.items() if counters or not name.endswith("num_batches_tracked")})
        found = fresh.state_dict()
        assert all(torch.equal(found[name], t) for name, t in own.items() if not name.endswith("num_batches_tracked"))


def test_blocks_are_left_out_in_training_alone(b0: EfficientNet) -> None:
    """The first never, the last in a share of 0.2 · 15/16 of all samples; the mean over many draws is the block in evaluation."""
    shares = [part.dropped for part in b0.modules() if isinstance(part, MBConv)]
    assert shares == pytest.approx([0.2 * k / 16 for k in range(16)])
    block = MBConv(8, 8, 3, stride=1, expansion=1, dropped=0.25, padding="symmetric")
    x = torch.randn(1, 8, 6, 6).expand(2000, -1, -1, -1)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(0)
        expected = block.eval()(x[:1]) - x[:1]
        block.train()
        for norm in block.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()
        added = block(x) - x
    left_out = (added == 0).flatten(1).all(1)
    assert abs(float(left_out.float().mean()) - 0.25) < 0.04
    torch.testing.assert_close(
        added[~left_out], (expected / 0.75).expand(int((~left_out).sum()), -1, -1, -1), atol=1e-5, rtol=1e-4
    )


def test_weights_that_do_not_fit_are_refused(b0: EfficientNet) -> None:
    own = {name: t.clone() for name, t in b0.state_dict().items() if not name.startswith("films.")}
    before = {name: t.clone() for name, t in b0.state_dict().items()}
    broken = dict(own)
    del broken["features.3.1.block.2.fc1.bias"]
    cases = [
        (broken, r"1 \(features.3.1.block.2.fc1.bias\) missing, none unknown"),
        ({**own, "features.9.0.weight": torch.zeros(1)}, r"none missing, 1 \(features.9.0.weight\) unknown"),
        ({**own, "features.8.1.bias": torch.zeros(7)}, r"should have shape \(1280,\), got \(7,\)"),
        ({**own, "features.8.1.bias": torch.full((1280,), float("nan"))}, "not finite"),
        ({"encoder.weight": torch.zeros(1)}, "neither as torchvision's"),
    ]
    for weights, message in cases:
        with pytest.raises(DataError, match=message):
            load_weights(b0, weights)
    foreign = {"embeddings.convolution.weight": torch.zeros(1), "encoder.blocks.99.expansion.expand_conv.weight": torch.zeros(1)}
    with pytest.raises(DataError, match=r"1 \(encoder.blocks.99.expansion.expand_conv.weight\) unknown"):
        load_weights(b0, foreign)
    with pytest.raises(DataError, match="not the weights of an EfficientNet-B1"):
        load_weights(EfficientNet("b1"), own)
    assert all(torch.equal(t, before[name]) for name, t in b0.state_dict().items())


@pytest.mark.parametrize(
    ("shape", "sentence", "message"),
    [
        ((1, 3, 16, 64), (1, 16), "of 32 pixels or more"),
        ((1, 4, 64, 64), (1, 16), "batch, 3, height, width"),
        ((1, 3, 64, 64), None, r"a sentence of shape \(1, 16\), got None"),
        ((2, 3, 64, 64), (1, 16), r"a sentence of shape \(2, 16\), got \(1, 16\)"),
    ],
)
def test_pictures_and_sentences_that_do_not_fit(
    b0: EfficientNet, shape: tuple[int, ...], sentence: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        b0(torch.zeros(shape), None if sentence is None else torch.zeros(sentence))
    with pytest.raises(DataError, match="variants are b0"):
        EfficientNet("b9")  # type: ignore[arg-type]
