"""RT-1 in the shape of its paper: counts, masks, and acting with what was seen kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ornstein
from ornstein.actions import UniformBins
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.networks.efficientnet import EfficientNet
from ornstein.networks.rt1_transformer import PaperTransformer, slot_mask
from ornstein.policies import PaperRT1, PaperRT1Config, RT1Policy, action_loss
from ornstein.simulation.tabletop import contract

SMALL = PaperRT1Config(
    variant="b0", image_size=64, history=3, width=32, depth=2, heads=2, key_size=8, dropout=0.0, drop_connect=0.0
)


@pytest.fixture(scope="module")
def network() -> PaperRT1:
    """Small, with batch norms and FiLM layers that do something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PaperRT1(SMALL).eval()
        with torch.no_grad():
            for name, tensor in network.named_parameters():
                if "film" in name or "norm" in name:
                    tensor.add_(torch.randn_like(tensor) * 0.1)
            for part in network.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.momentum = None  # the mean over all batches
            network.train()
            for _ in range(2):
                network(torch.rand(4, 3, 3, 64, 64), torch.randn(4, 1, 512))
            network.eval()
    return network


def _inputs(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, frames, 64, 64, 3), generator=g, dtype=torch.uint8), torch.randn(1, 1, 512, generator=g)


def test_parts_have_the_published_sizes() -> None:
    """The paper: 16 M for vision with FiLM, 34 K for TokenLearner, 19 M for the transformer, 35 M in all, 26 FiLM layers, 81 → 8 tokens."""
    with torch.device("meta"):
        network = PaperRT1()
        features = network.vision(torch.zeros(1, 3, 300, 300), torch.zeros(1, 512))

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert features.shape == (1, 512, 9, 9)
    assert len(network.vision.net.films) == 26
    assert count(network.token_learner) == 34_376
    assert round(count(network.vision) / 1e6) == 16
    assert round(count(network.transformer) / 1e6) == 19
    assert round(count(network) / 1e6) == 35
    # By hand: FiLM layers are (512 + 1) × 2 × channels, over all blocks 3,608 channels, and 512 of the last.
    assert count(network.vision) == count(EfficientNet("b3")) + 513 * 2 * (3608 + 512) + 1536 * 512
    # Attention 512 → 3 × 1,024 → 512, one linear layer, two norms; eight times; input, 6 × 16 positions, output.
    block = 513 * 3072 + 1025 * 512 + 513 * 512 + 4 * 512
    assert count(network.transformer) == 8 * block + 513 * 512 + (96 + 1) * 512 + 513 * 256


@pytest.mark.parametrize(("action", "size"), [("arm", 7), ("arm+mode", 8), ("arm+base+mode", 11)])
def test_layouts_of_an_action(action: str, size: int) -> None:
    config = replace(SMALL, action=action)
    network = PaperRT1(config)
    pictures, sentence = _inputs(2)
    logits, maps = network(pictures, sentence)
    assert logits.shape == (1, 2, size, 256)
    assert maps.shape == (1, 2, 8, 4)
    assert config.action_size == size


def test_who_may_look_at_whom() -> None:
    """Two frames of two tokens and two slots, row by row."""
    rows = ["1000 0000", "1100 0000", "1100 0000", "1100 0000", "1111 1000", "1111 1100", "1100 1100", "1100 1100"]
    expected = torch.tensor([[c == "1" for c in row.replace(" ", "")] for row in rows])
    assert torch.equal(slot_mask(2, 2, 2), expected)


def test_no_dimension_knows_the_future_or_another_dimension() -> None:
    """By derivatives: an action depends on its own and earlier frames' tokens, and each slot's place alone tells dimensions apart."""
    transformer = PaperTransformer(
        frames=3, tokens=2, action_size=3, num_bins=5, width=16, depth=2, heads=2, key_size=4, dropout=0.0
    )
    tokens = torch.randn(1, 3, 2, 16, requires_grad=True)
    logits = transformer(tokens)
    for frame in range(3):
        (slope,) = torch.autograd.grad(logits[0, frame].square().sum(), tokens, retain_graph=True)
        depends = slope[0].abs().amax((-1, -2)) > 0
        assert depends.tolist() == [k <= frame for k in range(3)]
    assert (logits[0, 2, 0] - logits[0, 2, 1]).abs().max() > 1e-4
    # In the first frame, places 0 and 1 are what was shown, 2 to 4 the slots: a dimension is read one place before its slot, the last slot never.
    for dimension in range(3):
        (slope,) = torch.autograd.grad(logits[0, 0, dimension].square().sum(), transformer.positions, retain_graph=True)
        used = (slope.abs().amax(-1) > 0).nonzero().flatten().tolist()
        assert used == ([0, 1] if dimension == 0 else [0, 1, 1 + dimension])
    torch.testing.assert_close(transformer(tokens[:, :2]), logits[:, :2])
    with pytest.raises(DataError, match="at most 3 frames of 2 tokens, got 4 of 2"):
        transformer(torch.zeros(1, 4, 2, 16))


def test_the_sentence_comes_through_film_alone(network: PaperRT1) -> None:
    pictures, sentence = _inputs(3)
    with torch.inference_mode():
        logits, _ = network(pictures, sentence)
        assert (network(pictures, -sentence)[0] - logits).abs().max() > 1e-4
        fresh = PaperRT1(SMALL).eval()
        assert torch.equal(fresh(pictures, sentence)[0], fresh(pictures, -sentence)[0])


def _observation(picture: torch.Tensor, instruction: str = "get the key") -> dict[str, object]:
    return {"pixels": {"front": picture.numpy()}, "agent_pos": np.zeros(7, np.float32), "instruction": instruction}


def _reading(sentences: list[str], pieces: int) -> np.ndarray:
    assert pieces == 0
    return np.stack([np.random.default_rng(len(s)).normal(size=(1, 512)) for s in sentences]).astype(np.float32)


def test_what_was_seen_is_kept_and_equals_looking_again(network: PaperRT1, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the whole window at every step; each picture is looked at once, and again when the instruction changes."""
    policy = RT1Policy(network, contract({"front": 64}), read=_reading)  # type: ignore[arg-type]
    bins = UniformBins.from_contract(contract({"front": 64}))
    pictures, _ = _inputs(6)
    looked, see = [], PaperRT1.see
    monkeypatch.setattr(PaperRT1, "see", lambda self, x, words: (looked.append(len(x)), see(self, x, words))[1])
    expected_looks = [1, 1, 1, 1, 3, 1]  # a new instruction at the fifth: two pictures that are still remembered and the new one
    for t, expected in enumerate(expected_looks):
        instruction = "get the key" if t < 4 else "open the drawer"
        looked.clear()
        action = policy.act(_observation(pictures[0, t], instruction))  # type: ignore[arg-type]
        assert sum(looked) == expected
        with torch.inference_mode():
            sentence = torch.from_numpy(_reading([instruction], 0))
            logits, _ = network(pictures[:, max(0, t - 2) : t + 1], sentence)
        arm = bins.decode(logits[0, -1, :7].argmax(-1).numpy())
        if policy.mode == "arm":
            np.testing.assert_array_equal(action, arm)
        else:
            assert not action[:6].any()
        assert policy.mode == ("arm", "base", "terminate")[int(logits[0, -1, 7, :3].argmax())]


def test_a_terminated_arm_stays_where_it_is(network: PaperRT1) -> None:
    policy = RT1Policy(network, contract({"front": 64}), read=_reading)  # type: ignore[arg-type]
    pictures, _ = _inputs(1)
    head = network.transformer.head
    before = head.bias.detach().clone()
    try:
        for k, mode in enumerate(("arm", "base", "terminate")):
            with torch.no_grad():
                head.bias.copy_(before)
                head.bias[k] += 1000.0
                head.bias[200] += 2000.0  # for the arm's dimensions; beyond the modes
            action = policy.act(_observation(pictures[0, 0]))  # type: ignore[arg-type]
            assert policy.mode == mode
            assert bool(action[:6].any()) == (mode == "arm")
            policy.reset()
            assert policy.mode == "arm"
    finally:
        with torch.no_grad():
            head.bias.copy_(before)


def test_a_saved_one_acts_the_same(network: PaperRT1, tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path / "p",
        kind="rt1",
        config=asdict(SMALL),
        tensors=network.state_dict(),
        contract=contract({"front": 64}),
        provenance={},
        card="",
    )
    loaded = ornstein.load(tmp_path / "p", expect="rt1")
    assert isinstance(loaded.network, PaperRT1)
    pictures, _ = _inputs(1)
    mine = RT1Policy(network, contract({"front": 64}))
    np.testing.assert_array_equal(
        loaded.act(_observation(pictures[0, 0])),  # type: ignore[arg-type]
        mine.act(_observation(pictures[0, 0])),  # type: ignore[arg-type]
    )


def test_imagenet_weights_start_it(tmp_path: Path) -> None:
    """A plain EfficientNet's weights in, from a file; before training, its features are the plain network's."""
    plain = EfficientNet("b0", padding="rt1").eval()
    save_file(plain.state_dict(), tmp_path / "b0.safetensors")
    fresh = PaperRT1(SMALL).eval()
    fresh.load_imagenet(tmp_path / "b0.safetensors")
    pictures = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fresh.vision.net(pictures, torch.randn(1, 512)), plain(pictures), atol=0, rtol=0)


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-5), ("bf16", 0.1)])
def test_made_for_acting_it_decides_the_same(network: PaperRT1, precision: str, share: float) -> None:
    """Against the plain network, in shares of the logits' spread; no batch norm is left, and the original stays as it was."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fast = network.for_acting(precision)  # type: ignore[arg-type]
    pictures, sentence = _inputs(3)
    with torch.inference_mode():
        expected, _ = network(pictures, sentence)
        found, _ = fast(pictures, sentence)
    assert found.dtype == torch.float32
    assert (found - expected).square().mean().sqrt() < share * expected.std()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fast.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    policy = RT1Policy(fast, contract({"front": 64}), read=_reading)  # type: ignore[arg-type]
    assert policy.act(_observation(pictures[0, 0])).shape == (7,)  # type: ignore[arg-type]


def test_it_overfits_one_batch() -> None:
    """The arm's seven bins and the mode, by `action_loss`, from pictures and sentences alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PaperRT1(replace(SMALL, image_size=32, drop_connect=0.0))
        pictures = torch.randint(0, 256, (4, 2, 32, 32, 3), dtype=torch.uint8)
        sentence, tokens = torch.randn(4, 1, 512), torch.randint(0, 256, (4, 2, 8))
        tokens[..., 7] = torch.randint(0, 3, (4, 2))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(80):
        loss, log = action_loss(network(pictures, sentence)[0], tokens, 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert log["bins_off"] < 2
    assert (network(pictures, sentence)[0][..., 7, :].argmax(-1) == tokens[..., 7]).all()


def test_what_does_not_fit_is_refused(network: PaperRT1) -> None:
    with pytest.raises(DataError, match="64 × 64 pixels"):
        network.see(torch.zeros(1, 3, 96, 96), torch.zeros(1, 512))
    with pytest.raises(DataError, match=r"a sentence is \(batch, 1, 512\)"):
        network.read(torch.zeros(1, 25, 512))
    with pytest.raises(UnknownNameError, match="layout of an action"):
        replace(SMALL, action="legs")  # type: ignore[arg-type]
