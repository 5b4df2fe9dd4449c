from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ornstein
from ornstein.actions import UniformBins
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import CheckpointError, DataError
from ornstein.networks.film_convnet import FiLMConvNet, TokenLearner
from ornstein.policies import RT1, PointedTensors, RT1Config, RT1Policy, decision_loss, heading_loss, pointing_loss, rt1_loss
from ornstein.policies.rt1 import _jitter, waves
from ornstein.simulation.tabletop import contract

CONFIG = RT1Config(image_size=64, history=3, channels=(16, 16), blocks=(1, 1), tokens=4, width=32, depth=2, heads=2)


def _fake_encoder(sentences: list[str]) -> np.ndarray:
    rows = [np.random.default_rng([ord(c) for c in s]).normal(size=512) for s in sentences]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


@pytest.fixture
def network() -> RT1:
    """Shaken out of its zero initialisation, so that every input matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(CONFIG).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def _inputs(frames: int = 3, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (batch, frames, 64, 64, 3), generator=g, dtype=torch.uint8)
    return pictures, torch.randn(batch, 512, generator=g), torch.randn(batch, frames, 7, generator=g)


def test_film_is_the_identity_at_the_start() -> None:
    vision = FiLMConvNet((16, 16), (1, 1))
    pictures = torch.rand(2, 3, 64, 64)
    assert torch.equal(vision(pictures, torch.randn(2, 512)), vision(pictures, torch.zeros(2, 512)))
    plain = FiLMConvNet((16, 16), (1, 1))
    plain.load_state_dict(vision.state_dict())
    for module in plain.modules():
        if hasattr(module, "film"):
            module.film.forward = lambda h, sentence: h
    assert torch.equal(vision(pictures, torch.randn(2, 512)), plain(pictures, torch.zeros(2, 512)))


def test_film_scales_and_shifts_by_channel() -> None:
    from ornstein.networks.film_convnet import FiLM

    film = FiLM(4, 2)
    with torch.no_grad():
        film.project.bias.copy_(torch.tensor([1.0, -1.0, 10.0, 20.0]))
    h = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(film(h, torch.zeros(1, 4)), torch.stack([2 * h[:, 0] + 10, 0 * h[:, 1] + 20], dim=1))


def test_token_learner_reads_what_and_where_its_map_points() -> None:
    learner = TokenLearner(3, 2, grid=4)
    features = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        learner.attention = torch.nn.Conv2d(3, 2, 1)
        learner.attention.weight.zero_()
        learner.attention.bias.zero_()
    tokens, maps = learner(features)
    torch.testing.assert_close(tokens[0, 0, :3], features.mean((2, 3))[0])
    torch.testing.assert_close(tokens[0, 0, 3:], torch.zeros(2), atol=1e-6, rtol=0)
    assert maps.shape == (1, 2, 16)
    assert learner.coordinates[1 * 4 + 3].tolist() == [0.75, -0.25]  # column 3, row 1


def test_a_frame_sees_the_past_and_not_the_future(network: RT1) -> None:
    pictures, sentence, state = _inputs()
    logits, _ = network(pictures, sentence, state)
    assert logits.shape == (2, 3, 7, 256)
    later = pictures.clone()
    later[:, 2] = 255 - later[:, 2]
    changed, _ = network(later, sentence, state)
    torch.testing.assert_close(changed[:, :2], logits[:, :2])
    assert (changed[:, 2] - logits[:, 2]).abs().max() > 1e-3
    earlier = pictures.clone()
    earlier[:, 0] = 255 - earlier[:, 0]
    assert (network(earlier, sentence, state)[0][:, 2] - logits[:, 2]).abs().max() > 1e-4


def test_language_and_state_matter(network: RT1) -> None:
    pictures, sentence, state = _inputs()
    logits, _ = network(pictures, sentence, state)
    assert (network(pictures, -sentence, state)[0] - logits).abs().max() > 1e-3
    assert (network(pictures, sentence, -state)[0] - logits).abs().max() > 1e-3
    blind = RT1(replace(CONFIG, state_size=0)).eval()
    torch.testing.assert_close(blind(pictures, sentence, state)[0], blind(pictures, sentence, -state)[0])
    # Without a token of its own the sentence still comes through FiLM, and through nothing else.
    by_film = RT1(replace(CONFIG, language_token=False)).eval()
    for parameter in by_film.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    assert (by_film(pictures, -sentence, state)[0] - by_film(pictures, sentence, state)[0]).abs().max() > 1e-4
    seen, _ = by_film.see(pictures[:, 0].permute(0, 3, 1, 2) / 255, sentence)
    assert torch.equal(
        by_film.decide(seen[:, None], sentence, state[:, :1]), by_film.decide(seen[:, None], -sentence, state[:, :1])
    )


def test_a_window_does_not_depend_on_its_batch(network: RT1) -> None:
    pictures, sentence, state = _inputs(batch=3)
    logits, maps = network(pictures, sentence, state)
    for k in range(3):
        alone = network(pictures[k : k + 1], sentence[k : k + 1], state[k : k + 1])
        torch.testing.assert_close(alone[0][0], logits[k], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone[1][0], maps[k], atol=1e-4, rtol=1e-4)


def test_buffers_standardise_sentence_and_state(network: RT1) -> None:
    pictures, sentence, state = _inputs()
    plain, _ = network(pictures, sentence, state)
    with torch.no_grad():
        network.sentence_mean.fill_(0.3)
        network.sentence_std.fill_(0.5)
        network.state_mean.copy_(torch.arange(7.0))
        network.state_std.fill_(2.0)
    scaled, _ = network(pictures, sentence * 0.5 + 0.3, state * 2 + torch.arange(7.0))
    torch.testing.assert_close(scaled, plain, atol=1e-4, rtol=1e-4)


def test_color_jitter_is_one_for_a_window_and_small() -> None:
    pictures, _, _ = _inputs(batch=4)
    pictures[:, 1:] = pictures[:, :1]
    plain = pictures.permute(0, 1, 4, 2, 3).float() / 255
    assert torch.equal(_jitter(pictures, 0.0, torch.Generator()), plain)
    changed = _jitter(pictures, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(changed[:, 1:], changed[:, :1].expand(-1, 2, -1, -1, -1))
    assert (changed - plain).abs().max() <= 0.5 * 0.1 + 0.5 * 0.1 + 1e-6
    assert changed.min() >= 0
    assert changed.max() <= 1
    shifts = (changed - plain).mean((1, 2, 3, 4))
    assert len(set(shifts.tolist())) == 4
    assert torch.equal(changed, _jitter(pictures, 0.1, torch.Generator().manual_seed(0)))


@given(st.lists(st.floats(-0.87, 0.87), min_size=4, max_size=4))
def test_the_best_map_points_exactly_where_it_should(places: list[float]) -> None:
    """Followed downhill, the loss ends where each map's mean place is its pointer, between the cells' centres too."""
    pointers = torch.tensor(places).reshape(1, 2, 2)
    grid = 8
    place = (pointers + 1) / 2 * grid - 0.5
    low, share = place.floor(), place - place.floor()
    maps = torch.full((1, 3, grid, grid), -30.0)
    for k in range(2):  # written out: four corners, each the more the nearer it is
        for down in (0, 1):
            for right in (0, 1):
                column, row = int(low[0, k, 0]) + right, int(low[0, k, 1]) + down
                weight = (share[0, k, 0] if right else 1 - share[0, k, 0]) * (share[0, k, 1] if down else 1 - share[0, k, 1])
                if weight > 0:
                    maps[0, k, row, column] = weight.log().clamp(min=-30)
    maps = maps.flatten(2).requires_grad_()
    (slope,) = torch.autograd.grad(pointing_loss(maps, pointers), maps)
    assert slope.abs().max() < 1e-5
    axis = (torch.arange(grid) + 0.5) / grid * 2 - 1
    weights = maps[0, :2].softmax(-1).unflatten(-1, (grid, grid)).detach()
    mean = torch.stack([(weights.sum(1) * axis).sum(-1), (weights.sum(2) * axis).sum(-1)], dim=-1)
    torch.testing.assert_close(mean, pointers[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("place", "cell"), [((-1.0, -1.0), 0), ((0.99, 0.99), 63), ((0.99, -0.99), 7), ((1.5, 0.0625 * 2), 4 * 8 + 7)]
)
def test_a_pointer_beyond_the_outermost_cells_counts_there(place: tuple[float, float], cell: int) -> None:
    """Eight cells a side; column from the first number, row from the second; the third map is free."""
    maps = torch.randn(1, 3, 64)
    pointers = torch.tensor(place).expand(1, 2, 2)
    torch.testing.assert_close(pointing_loss(maps, pointers), -maps[:, :2].log_softmax(-1)[..., cell].mean())


def test_stills_teach_pointing_and_nothing_else(network: RT1) -> None:
    pictures, sentence, state = _inputs()
    tokens, pointers, headings = torch.zeros(2, 3, 7, dtype=torch.int64), torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2)
    settings = {"smoothing_bins": 0.0, "pointing": 1.0, "color_jitter": 0.0}
    stills = PointedTensors(pictures[:, 0], -sentence, torch.full((2, 2, 2), 0.4), torch.zeros(2, 2))
    _, without = rt1_loss(network, pictures, sentence, state, tokens, pointers, headings, torch.Generator(), **settings)
    _, log = rt1_loss(network, pictures, sentence, state, tokens, pointers, headings, torch.Generator(), **settings, views=stills)
    assert log["tokens"] == without["tokens"]
    _, maps = network(pictures[:, :1], -sentence, state[:, :1])
    of_stills = pointing_loss(maps[:, 0], stills.pointers)
    torch.testing.assert_close(log["pointing"], ((6 * without["pointing"] + 2 * of_stills) / 8).detach())


def test_acting_step_by_step_equals_the_network_on_the_window(network: RT1) -> None:
    policy = RT1Policy(network, contract({"front": 64}), encode=_fake_encoder)
    bins = UniformBins.from_contract(contract({"front": 64}))
    pictures, _, state = _inputs(frames=5, batch=1)
    sentence = torch.from_numpy(_fake_encoder(["pick up the key"]))
    for _ in range(2):  # a reset forgets
        policy.reset()
        for t in range(5):
            observation = {
                "pixels": {"front": pictures[0, t].numpy()},
                "agent_pos": state[0, t].numpy(),
                "instruction": "pick up the key",
            }
            action = policy.act(observation)
            window = slice(max(0, t - 2), t + 1)
            with torch.inference_mode():
                logits, _ = network(pictures[:, window], sentence, state[:, window])
            tokens = bins.likeliest(logits[0, -1].softmax(-1).numpy(), CONFIG.decoding_width)
            np.testing.assert_array_equal(action, bins.decode(tokens))
            assert (action >= contract({"front": 64}).action_low).all()
            assert (action <= contract({"front": 64}).action_high).all()


def test_loss_of_uniform_logits_is_log_256_and_falls_to_the_smoothings_entropy() -> None:
    network = RT1(CONFIG)
    pictures, sentence, state = _inputs()
    tokens = torch.full((2, 3, 7), 100)
    settings = {"pointing": 0.0, "color_jitter": 0.0}
    target, headings = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2)
    for smoothing in (0.0, 1.5):
        _, log = rt1_loss(
            network, pictures, sentence, state, tokens, target, headings, torch.Generator(), smoothing_bins=smoothing, **settings
        )
        assert abs(float(log["tokens"]) - np.log(256)) < 1e-4
    bins = torch.arange(256)
    best = torch.softmax(-0.5 * ((bins - 100) / 1.5) ** 2, 0)
    with torch.no_grad():
        network.head.bias.copy_(best.log().clamp(min=-60).repeat(7))
    _, log = rt1_loss(
        network, pictures, sentence, state, tokens, target, headings, torch.Generator(), smoothing_bins=1.5, **settings
    )
    entropy = -(best * best.clamp(min=1e-30).log()).sum()
    torch.testing.assert_close(log["tokens"], entropy, rtol=1e-3, atol=1e-3)
    assert log["bins_off"] == 0
    assert log["gripper_right"] == 1


def test_it_overfits_one_batch_and_learns_to_point() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(CONFIG)
    pictures, sentence, state = _inputs(batch=4)
    g = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 256, (4, 3, 7), generator=g)
    target = torch.rand(4, 3, 2, 2, generator=g) * 2 - 1
    angles = torch.rand(4, 3, generator=g) * 6
    headings = torch.stack([angles.sin(), angles.cos()], dim=-1)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(150):
        loss, log = rt1_loss(
            network, pictures, sentence, state, tokens, target, headings, g, smoothing_bins=0.5, pointing=0.3, color_jitter=0.0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert log["bins_off"] < 2
    assert log["points_right"] == 1
    assert log["heading"] < 0.1


def test_what_was_seen_can_be_kept_and_decided_on_later(network: RT1) -> None:
    """Seeing once and deciding from it is the network; noise on places moves nothing but places."""
    pictures, sentence, state = _inputs()
    tokens = torch.zeros(2, 3, 7, dtype=torch.int64)
    logits, _ = network(pictures, sentence, state)
    seen, _ = network.see(pictures.flatten(0, 1).permute(0, 3, 1, 2) / 255, network.read(sentence).repeat_interleave(3, 0))
    seen = seen.unflatten(0, (2, 3))
    torch.testing.assert_close(network.decide(seen, network.read(sentence), state), logits)
    settings = {"smoothing_bins": 0.0, "rng": torch.Generator().manual_seed(1)}
    loss, _ = decision_loss(network, seen, sentence, state, tokens, place_noise=0.0, **settings)
    torch.testing.assert_close(loss, -logits.log_softmax(-1)[..., 0].mean())
    noisy, _ = decision_loss(network, seen, sentence, state, tokens, place_noise=0.1, **settings)
    assert (noisy - loss).abs() > 1e-6


def test_headings_count_where_something_turns() -> None:
    read = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.0, 0.0]])
    headings = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.6, 0.8]])
    assert heading_loss(read, headings) == pytest.approx((2.0 + 1.0) / 2)
    assert heading_loss(read, torch.zeros(3, 2)) == 0


def test_waves_tell_millimetres_apart() -> None:
    values = torch.tensor([[0.25, -1.0]])
    expected = [0.25, -1.0, np.sin(np.pi / 4), 0, np.cos(np.pi / 4), -1, 1, 0, 0, 1]
    torch.testing.assert_close(waves(values, 2)[0], torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)
    assert torch.equal(waves(values, 0), values)


def _save(network: RT1, folder: Path, **changes: object) -> Path:
    settings = {"kind": "rt1", "config": asdict(CONFIG), "tensors": network.state_dict(), "contract": contract({"front": 64})}
    write_checkpoint(folder, provenance={}, card="", **{**settings, **changes})  # type: ignore[arg-type]
    return folder


def test_a_saved_policy_acts_the_same(network: RT1, tmp_path: Path) -> None:
    loaded = ornstein.load(_save(network, tmp_path / "p"), expect="rt1")
    mine = RT1Policy(network, contract({"front": 64}))
    pictures, _, state = _inputs(batch=1)
    observation = {"pixels": {"front": pictures[0, 0].numpy()}, "agent_pos": state[0, 0].numpy(), "instruction": "get the star"}
    np.testing.assert_array_equal(loaded.act(observation), mine.act(observation))
    assert loaded.contract == contract({"front": 64})


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_must_fit_exactly(network: RT1, tmp_path: Path, change: str) -> None:
    tensors = dict(network.state_dict())
    if change == "missing":
        del tensors["head.bias"]
    else:
        tensors["head.extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"head\.bias" if change == "missing" else r"head\.extra"):
        ornstein.load(_save(network, tmp_path / "p", tensors=tensors))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contract": None}, "no contract.json"),
        ({"config": {**asdict(CONFIG), "width": 64}}, "do not fit"),
        ({"config": {"width": 64}}, "does not fit an RT-1"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(network: RT1, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ornstein.load(_save(network, tmp_path / "p", **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": {"side": np.zeros((64, 64, 3), np.uint8)}}, "lacks camera 'front'"),
        ({"pixels": {"front": np.zeros((32, 64, 3), np.uint8)}}, "must give uint8"),
        ({"pixels": {"front": np.zeros((64, 64, 3), np.float32)}}, "must give uint8"),
        ({"agent_pos": np.zeros(6, np.float32)}, "7 finite numbers"),
        ({"agent_pos": np.full(7, np.nan, np.float32)}, "7 finite numbers"),
        ({"instruction": "x" * 400}, "400 characters"),
        ({"instruction": None}, "must be a sentence"),
    ],
)
def test_observations_that_do_not_fit_are_refused(network: RT1, change: dict[str, object], message: str) -> None:
    policy = RT1Policy(network, contract({"front": 64}))
    good = {
        "pixels": {"front": np.zeros((64, 64, 3), np.uint8)},
        "agent_pos": np.zeros(7, np.float32),
        "instruction": "get the key",
    }
    policy.act(good)
    with pytest.raises(DataError, match=message):
        policy.act({**good, **change})


def test_a_missing_part_of_the_observation_is_named(network: RT1) -> None:
    with pytest.raises(DataError, match="lacks agent_pos, instruction; it has pixels"):
        RT1Policy(network, contract({"front": 64})).act({"pixels": {"front": np.zeros((64, 64, 3), np.uint8)}})  # type: ignore[typeddict-item]


def test_a_refused_step_leaves_no_trace(network: RT1) -> None:
    pictures, _, state = _inputs(batch=1)
    steps = [
        {"pixels": {"front": pictures[0, t].numpy()}, "agent_pos": state[0, t].numpy(), "instruction": "get the key"}
        for t in range(3)
    ]
    clean, disturbed = RT1Policy(network, contract({"front": 64})), RT1Policy(network, contract({"front": 64}))
    for step in steps:
        with pytest.raises(DataError):
            disturbed.act({**step, "pixels": {"front": 255 - step["pixels"]["front"]}, "instruction": "x" * 400})
        np.testing.assert_array_equal(clean.act(step), disturbed.act(step))


def test_a_camera_may_reuse_its_buffer(network: RT1) -> None:
    pictures, _, state = _inputs(batch=1)
    buffer = np.zeros((64, 64, 3), np.uint8)
    fresh, reused = RT1Policy(network, contract({"front": 64})), RT1Policy(network, contract({"front": 64}))
    for t in range(3):
        buffer[:] = pictures[0, t].numpy()
        common = {"agent_pos": state[0, t].numpy(), "instruction": "get the key"}
        expected = fresh.act({"pixels": {"front": pictures[0, t].numpy()}, **common})
        np.testing.assert_array_equal(reused.act({"pixels": {"front": buffer}, **common}), expected)


def test_a_network_for_another_body_is_refused(network: RT1) -> None:
    body = contract({"front": 64})
    with pytest.raises(DataError, match="gives 7 numbers"):
        RT1Policy(network, replace(body, action=body.action[:6]))
    with pytest.raises(DataError, match="reads 7 of the arm's state"):
        RT1Policy(network, replace(body, state=body.state[:3]))
    with pytest.raises(DataError, match="64 px"):
        RT1Policy(network, contract({"front": 128}))
