from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ornstein
from ornstein.actions import ChunkExecution, UniformBins
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import CheckpointError, DataError
from ornstein.networks.film_convnet import FiLMConvNet, TokenLearner
from ornstein.networks.sentence_reader import SentenceReader
from ornstein.networks.waves import waves
from ornstein.policies import (
    RT1,
    PointedTensors,
    RT1Config,
    RT1Policy,
    SpokenTensors,
    decision_loss,
    heading_loss,
    naming_loss,
    pointing_loss,
    reading_loss,
    recognition_loss,
    rt1_loss,
    without_words,
)
from ornstein.policies.rt1 import TrainingAids, presence
from ornstein.policies.rt1_losses import jittered
from ornstein.simulation.tabletop import contract

CONFIG = RT1Config(
    image_size=64,
    history=3,
    channels=(16, 16),
    blocks=(1, 1),
    tokens=4,
    width=32,
    depth=2,
    heads=2,
    language_width=16,
    word_pieces=6,
)


BODY = contract({"front": 64})
HEAD = {"kind": "bins", "length": 1, "decoding": "parallel", "bins": {"num_bins": 256}}
BINS = UniformBins.from_contract(BODY)
BOUNDS = torch.from_numpy(np.stack([BODY.action_low, BODY.action_high]))
EXECUTION = {"every": 1, "ensemble_decay": None}


def _fake_encoder(sentences: list[str], pieces: int) -> np.ndarray:
    rows = [np.random.default_rng([ord(c) for c in s]).normal(size=(1 + pieces, 512)) for s in sentences]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


@pytest.fixture
def network() -> RT1:
    """Shaken out of its zero initialisation, so that every input matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(CONFIG, HEAD, BODY).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def _inputs(frames: int = 3, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (batch, frames, 64, 64, 3), generator=g, dtype=torch.uint8)
    return pictures, torch.randn(batch, 7, 512, generator=g), torch.randn(batch, frames, 7, generator=g)


def test_film_is_the_identity_at_the_start() -> None:
    vision = FiLMConvNet((16, 16), (1, 1), 12)
    pictures = torch.rand(2, 3, 64, 64)
    assert torch.equal(vision(pictures, torch.randn(2, 12)), vision(pictures, torch.zeros(2, 12)))
    plain = FiLMConvNet((16, 16), (1, 1), 12)
    plain.load_state_dict(vision.state_dict())
    for module in plain.modules():
        if hasattr(module, "film"):
            module.film.forward = lambda h, sentence: h
    assert torch.equal(vision(pictures, torch.randn(2, 12)), plain(pictures, torch.zeros(2, 12)))


def test_film_scales_and_shifts_by_channel() -> None:
    from ornstein.networks.film_convnet import FiLM

    film = FiLM(4, 2)
    with torch.no_grad():
        film.project.bias.copy_(torch.tensor([1.0, -1.0, 10.0, 20.0]))
    h = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(film(h, torch.zeros(1, 4)), torch.stack([2 * h[:, 0] + 10, 0 * h[:, 1] + 20], dim=1))


def test_token_learner_reads_what_and_where_its_map_points() -> None:
    learner = TokenLearner(3, 2, grid=4, language_width=5)
    rng = torch.Generator().manual_seed(0)
    features, words = torch.randn(1, 3, 4, 4, generator=rng), torch.randn(1, 5, generator=rng)
    features[0, 0] = torch.randperm(16, generator=rng).view(4, 4) / 4 - 2  # the highest place is well above the next
    with torch.no_grad():
        learner.attention = torch.nn.Conv2d(3, 2, 1)
        learner.attention.weight.zero_()
        learner.attention.bias.zero_()
        learner.query.weight.zero_()
        learner.query.bias.zero_()
    tokens, maps = learner(features, words)
    torch.testing.assert_close(tokens[0, 0, :3], features.mean((2, 3))[0])
    torch.testing.assert_close(tokens[0, 0, 3:], torch.zeros(2), atol=1e-6, rtol=0)
    assert maps.shape == (1, 2, 16)
    assert learner.coordinates[1 * 4 + 3].tolist() == [0.75, -0.25]  # column 3, row 1
    with torch.no_grad():  # the second map asks for what the key makes of the first channel
        learner.query.bias[32] = 1000.0
        learner.key.weight.zero_()
        learner.key.weight[0, 0] = 1.0
    tokens, _ = learner(features, words)
    torch.testing.assert_close(tokens[0, 0, :3], features.mean((2, 3))[0])
    best = int(features[0, 0].argmax())
    torch.testing.assert_close(tokens[0, 1, 3:], learner.coordinates[best], atol=1e-3, rtol=0)


def test_a_pointer_is_one_of_two_places_and_not_between_them() -> None:
    """The first map is as high in two corners, one a little more; the second is no pointer and lies between."""
    learner = TokenLearner(2, 2, grid=8, language_width=5, pointers=1)
    features = torch.zeros(1, 2, 8, 8)
    features[0, :, 1, 1], features[0, :, 1, 2], features[0, :, 6, 6] = 20.0, 19.0, 19.9
    with torch.no_grad():
        learner.attention = torch.nn.Conv2d(2, 2, 1, bias=False)
        learner.attention.weight.copy_(torch.eye(2)[:, :, None, None])
        learner.query.weight.zero_()
        learner.query.bias.zero_()
    tokens, maps = learner(features, torch.zeros(1, 5))
    share = float(torch.sigmoid(torch.tensor(1.0)))
    column = share * learner.coordinates[9, 0] + (1 - share) * learner.coordinates[10, 0]
    torch.testing.assert_close(tokens[0, 0, 2:], torch.stack([column, learner.coordinates[9, 1]]), atol=1e-4, rtol=0)
    weights = maps[0, 1].softmax(-1)
    torch.testing.assert_close(tokens[0, 1, 2:], weights @ learner.coordinates, atol=1e-5, rtol=0)
    assert tokens[0, 1, 2:].abs().max() < 0.3


def test_a_frame_sees_the_past_and_not_the_future(network: RT1) -> None:
    pictures, sentence, state = _inputs()
    logits, _ = network(pictures, sentence, state)
    assert logits.shape == (2, 3, 32)
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
    blind = RT1(replace(CONFIG, state_size=0), HEAD, BODY).eval()
    torch.testing.assert_close(blind(pictures, sentence, state)[0], blind(pictures, sentence, -state)[0])
    # Without a token of its own the sentence still comes through FiLM, and through nothing else.
    by_film = RT1(replace(CONFIG, language_token=False), HEAD, BODY).eval()
    for parameter in by_film.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    assert (by_film(pictures, -sentence, state)[0] - by_film(pictures, sentence, state)[0]).abs().max() > 1e-4
    words = by_film.reader(sentence)
    seen, _ = by_film.see(pictures[:, 0].permute(0, 3, 1, 2) / 255, words)
    assert torch.equal(by_film.decide(seen[:, None], words, state[:, :1]), by_film.decide(seen[:, None], -words, state[:, :1]))


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
        network.reader.vector_mean.fill_(0.3)
        network.reader.vector_std.fill_(0.5)
        network.state_mean.copy_(torch.arange(7.0))
        network.state_std.fill_(2.0)
    sentence[:, 0] = sentence[:, 0] * 0.5 + 0.3
    scaled, _ = network(pictures, sentence, state * 2 + torch.arange(7.0))
    torch.testing.assert_close(scaled, plain, atol=1e-4, rtol=1e-4)


def test_color_jitter_is_one_for_a_window_and_small() -> None:
    pictures, _, _ = _inputs(batch=4)
    pictures[:, 1:] = pictures[:, :1]
    plain = pictures.permute(0, 1, 4, 2, 3).float() / 255
    assert torch.equal(jittered(pictures, 0.0, torch.Generator()), plain)
    changed = jittered(pictures, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(changed[:, 1:], changed[:, :1].expand(-1, 2, -1, -1, -1))
    assert (changed - plain).abs().max() <= 0.5 * 0.1 + 0.5 * 0.1 + 1e-6
    assert changed.min() >= 0
    assert changed.max() <= 1
    shifts = (changed - plain).mean((1, 2, 3, 4))
    assert len(set(shifts.tolist())) == 4
    assert torch.equal(changed, jittered(pictures, 0.1, torch.Generator().manual_seed(0)))


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
    (slope,) = torch.autograd.grad(pointing_loss(maps, torch.full((1, 2), -60.0), pointers, torch.ones(1, 2)), maps)
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
    nowhere = torch.randn(1, 2)
    every = torch.cat([maps[:, :2], nowhere[..., None]], -1).log_softmax(-1)
    torch.testing.assert_close(pointing_loss(maps, nowhere, pointers, torch.ones(1, 2)), -every[..., cell].mean())


def test_what_is_not_there_is_nowhere() -> None:
    """The second thing is absent: its map should lose to nowhere, wherever its pointer says; and presence is that probability."""
    maps, nowhere = torch.randn(1, 3, 64), torch.randn(1, 2)
    every = torch.cat([maps[:, :2], nowhere[..., None]], -1).log_softmax(-1)
    pointers = torch.tensor([[[-1.0, -1.0], [0.3, 0.2]]])
    expected = -(every[0, 0, 0] + every[0, 1, -1]) / 2
    torch.testing.assert_close(pointing_loss(maps, nowhere, pointers, torch.tensor([[1.0, 0.0]])), expected)
    torch.testing.assert_close(presence(maps, nowhere), 1 - every[..., -1].exp())


def test_stills_teach_pointing_and_nothing_else(network: RT1) -> None:
    pictures, sentence, state = _inputs()
    actions, pointers, headings = torch.zeros(2, 3, 1, 7), torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2)
    settings = {"acting": 1.0, "color_jitter": 0.0}
    things, places = torch.full((2, 8), -1), torch.zeros(2, 8, 2)
    stills = PointedTensors(
        pictures[:, 0], -sentence, torch.full((2, 2, 2), 0.4), torch.zeros(2, 2), torch.tensor([[1, 1], [0, 1]]), things, places
    )
    _, without = rt1_loss(network, pictures, sentence, state, actions, pointers, headings, torch.Generator(), **settings)
    _, log = rt1_loss(
        network, pictures, sentence, state, actions, pointers, headings, torch.Generator(), **settings, views=stills
    )
    torch.testing.assert_close(log["actions"], without["actions"])
    _, maps = network(pictures[:, :1], -sentence, state[:, :1])
    nowhere = network.nowhere(network.read(-sentence))
    of_stills = pointing_loss(maps[:, 0], nowhere, stills.pointers, stills.there.float())
    torch.testing.assert_close(log["pointing"], ((6 * without["pointing"] + 2 * of_stills) / 8).detach())


def test_acting_step_by_step_equals_the_network_on_the_window(network: RT1) -> None:
    policy = RT1Policy(network, contract({"front": 64}), read=_fake_encoder)
    pictures, _, state = _inputs(frames=5, batch=1)
    sentence = torch.from_numpy(_fake_encoder(["pick up the key"], 6))
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
                decided, _ = network(pictures[:, window], sentence, state[:, window])
                logits = network.head.out(decided[0, -1]).view(7, 256)
            np.testing.assert_array_equal(action, BINS.decode(logits.argmax(-1).numpy()))
            assert (action >= contract({"front": 64}).action_low).all()
            assert (action <= contract({"front": 64}).action_high).all()


def test_loss_of_uniform_logits_is_log_256_and_falls_to_the_smoothings_entropy() -> None:
    pictures, sentence, state = _inputs()
    actions = torch.from_numpy(BINS.decode(np.full((2, 3, 1, 7), 100)))
    target, headings = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2)
    settings = {"acting": 1.0, "color_jitter": 0.0}
    for smoothing in (0.0, 1.5):
        network = RT1(CONFIG, {**HEAD, "smoothing_bins": smoothing}, BODY)
        _, log = rt1_loss(network, pictures, sentence, state, actions, target, headings, torch.Generator(), **settings)
        assert abs(float(log["actions"]) - np.log(256)) < 1e-4
    best = torch.softmax(-0.5 * ((torch.arange(256) - 100) / 1.5) ** 2, 0)
    with torch.no_grad():
        network.head.out.bias.copy_(best.log().clamp(min=-60).repeat(7))
    _, log = rt1_loss(network, pictures, sentence, state, actions, target, headings, torch.Generator(), **settings)
    entropy = -(best * best.clamp(min=1e-30).log()).sum()
    torch.testing.assert_close(log["actions"], entropy, rtol=1e-3, atol=1e-3)


def test_it_overfits_one_batch_and_learns_to_point() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(CONFIG, {**HEAD, "smoothing_bins": 0.5}, BODY)
    pictures, sentence, state = _inputs(batch=4)
    g = torch.Generator().manual_seed(2)
    actions = torch.rand((4, 3, 1, 7), generator=g) * (BOUNDS[1] - BOUNDS[0]) + BOUNDS[0]
    target = torch.rand(4, 3, 2, 2, generator=g) * 2 - 1
    angles = torch.rand(4, 3, generator=g) * 6
    headings = torch.stack([angles.sin(), angles.cos()], dim=-1)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(150):
        loss, log = rt1_loss(network, pictures, sentence, state, actions, target, headings, g, acting=1.0, color_jitter=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = network.head.sample(network(pictures, sentence, state)[0].flatten(0, 1), g, greedy=True)
    off = (said - actions.flatten(0, 1)).abs() / (BOUNDS[1] - BOUNDS[0]) * 256
    assert off.mean() < 2
    assert log["points_right"] == 1
    assert log["heading"] < 0.1


def test_what_was_seen_can_be_kept_and_decided_on_later(network: RT1) -> None:
    """Seeing once and deciding from it is the network; noise on places moves nothing but places."""
    pictures, sentence, state = _inputs()
    actions = torch.from_numpy(BINS.decode(np.zeros((2, 3, 1, 7), int)))
    decided, _ = network(pictures, sentence, state)
    words = network.read(sentence)
    seen, _ = network.see(pictures.flatten(0, 1).permute(0, 3, 1, 2) / 255, words.repeat_interleave(3, 0))
    seen = seen.unflatten(0, (2, 3))
    torch.testing.assert_close(network.decide(seen, words, state), decided)
    loss, _ = decision_loss(network, seen, words, state, actions, torch.Generator().manual_seed(1), place_noise=0.0)
    logits = network.head.out(decided).unflatten(-1, (7, 256))
    torch.testing.assert_close(loss, -logits.log_softmax(-1)[..., 0].mean())
    noisy, _ = decision_loss(network, seen, words, state, actions, torch.Generator().manual_seed(1), place_noise=0.1)
    assert (noisy - loss).abs() > 1e-6


@pytest.mark.parametrize("execution", [ChunkExecution(4, every=3), ChunkExecution(4, ensemble_decay=0.1)])
def test_chunks_are_executed_and_drawn_by_the_seed(execution: ChunkExecution) -> None:
    """Against the head asked by hand; with a network that remembers, frames between two chunks are seen when they are needed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(CONFIG, {"kind": "flow", "length": 4, "steps": 2}, BODY).eval()
    every = 3 if execution.length == 4 and not execution._decay else 1
    policy = RT1Policy(network, BODY, read=_fake_encoder, execution=execution, greedy=False, seed=5)
    pictures, _, state = _inputs(frames=7, batch=1)
    sentence = torch.from_numpy(_fake_encoder(["get the key"], 6))
    by_hand = ChunkExecution(4, every=every, ensemble_decay=execution._decay)
    first = []
    for run in range(2):
        policy.reset()
        by_hand.reset()
        rng = torch.Generator().manual_seed(5)
        for t in range(7):
            observation = {
                "pixels": {"front": pictures[0, t].numpy()},
                "agent_pos": state[0, t].numpy(),
                "instruction": "get the key",
            }
            chunk = None
            if by_hand.wants_chunk:
                window = slice(max(0, t - 2), t + 1)
                with torch.inference_mode():
                    decided, _ = network(pictures[:, window], sentence, state[:, window])
                    chunk = network.head.sample(decided[:, -1], rng)[0].numpy()
            action = policy.act(observation)
            np.testing.assert_allclose(action, by_hand.next(chunk), atol=1e-6)
            if run == 0:
                first.append(action)
    assert len({action.tobytes() for action in first}) > 3
    one, other = copy.copy(policy), copy.copy(policy)  # two robots on the same weights, in turns
    for robot in (one, other):
        robot.reset()
    for t, action in enumerate(first):
        for robot in (one, other):
            seen = {"pixels": {"front": pictures[0, t].numpy()}, "agent_pos": state[0, t].numpy(), "instruction": "get the key"}
            np.testing.assert_allclose(robot.act(seen), action, atol=1e-6)


def _observation(pictures: torch.Tensor, state: torch.Tensor, t: int, instruction: str = "get the key") -> dict[str, object]:
    return {"pixels": {"front": pictures[0, t].numpy()}, "agent_pos": state[0, t].numpy(), "instruction": instruction}


def test_it_says_how_surely_it_sees_and_refuses_what_it_does_not(network: RT1) -> None:
    """Against the maps by hand; a refusal lasts as long as the instruction, and the arm stays with its gripper as it is."""
    pictures, _, state = _inputs(frames=4, batch=1)
    state = state.abs()
    peaks = {}
    for instruction in ("get the key", "open the drawer"):
        with torch.inference_mode():
            sentence = torch.from_numpy(_fake_encoder([instruction], 6))
            _, maps = network(pictures[:, :1], sentence, state[:, :1])
            peaks[instruction] = float(presence(maps[:, 0], network.nowhere(network.read(sentence))).prod())
    low, high = sorted(peaks, key=peaks.__getitem__)
    policy = RT1Policy(network, BODY, read=_fake_encoder, refuse_below=(peaks[low] + peaks[high]) / 2)
    free = RT1Policy(network, BODY, read=_fake_encoder)
    with pytest.raises(DataError, match="nothing was seen"):
        _ = policy.found
    refused = policy.act(_observation(pictures, state, 0, low))  # type: ignore[arg-type]
    assert policy.found == pytest.approx(peaks[low], abs=1e-4)
    assert policy.trouble == "I do not see what I am asked for"
    assert not refused[:6].any()
    assert refused[6] == state[0, 0, 6]
    assert not policy.act(_observation(pictures, state, 1, low))[:6].any()  # type: ignore[arg-type]
    policy.reset()
    for t in range(2):
        observation = _observation(pictures, state, t, high)
        np.testing.assert_array_equal(policy.act(observation), free.act(observation))  # type: ignore[arg-type]
    assert not policy.trouble


def test_doubt_is_the_entropy_of_its_tokens(network: RT1) -> None:
    pictures, sentence, state = _inputs(frames=1, batch=1)
    policy = RT1Policy(network, BODY, read=lambda *_: sentence.numpy())
    with pytest.raises(DataError, match="call act first"):
        _ = policy.doubt
    policy.act(_observation(pictures, state, 0))  # type: ignore[arg-type]
    with torch.inference_mode():
        p = network.head.out(network(pictures, sentence, state)[0][0, 0]).view(7, 256).softmax(-1)
    assert policy.doubt == pytest.approx(float(-(p * p.log()).sum(-1).mean()), rel=1e-4)


def test_an_execution_for_other_chunks_is_refused(network: RT1) -> None:
    with pytest.raises(DataError, match="says 1 actions at a time, the execution takes 4"):
        RT1Policy(network, BODY, execution=ChunkExecution(4))


def test_naming_is_told_by_the_names_own_vectors() -> None:
    """Reading exactly a name's vector is right, the other way round wrong, and nothing read is a guess among all."""
    names = torch.nn.functional.normalize(torch.randn(9, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    moved, goal = torch.tensor([1, 4]), torch.tensor([7, 4])
    right = torch.cat([names[moved], names[goal]], dim=-1)
    assert naming_loss(right, moved, goal, names) < 1e-3
    assert naming_loss(torch.cat([names[goal], names[moved]], dim=-1), moved, goal, names) > 5
    torch.testing.assert_close(
        naming_loss(torch.zeros(2, 1024), moved, goal, names), torch.tensor(2 * np.log(9), dtype=torch.float32)
    )


def test_sentences_alone_teach_reading_and_nothing_else(network: RT1) -> None:
    _, sentence, _ = _inputs()
    spoken, names = SpokenTensors(-sentence, torch.tensor([0, 1]), torch.tensor([2, 2]), torch.tensor([5, 3])), torch.eye(3, 512)
    loss = reading_loss(network, spoken, names, torch.Generator(), 0.0)
    words = torch.nn.functional.silu(network.read(-sentence))
    chances = network.aids.skill(words).softmax(-1)
    asked = -(chances[0, 5].log() + chances[1, 3].log()) / 2
    torch.testing.assert_close(loss, naming_loss(network.aids.naming(words), spoken.moved, spoken.goal, names) + asked)
    slopes = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    touched = {
        name
        for (name, _), slope in zip(network.named_parameters(), slopes, strict=True)
        if slope is not None and slope.abs().max() > 1e-5
    }
    assert {".".join(name.split(".")[:2]) for name in touched if name.startswith("aids")} == {"aids.naming", "aids.skill"}
    assert {name.split(".")[0] for name in touched} == {"reader", "aids"}
    with_fewer_words = reading_loss(network, spoken, names, torch.Generator().manual_seed(1), 0.5)
    assert (with_fewer_words - loss).abs() > 1e-6


def test_what_lies_where_is_told_from_the_features_there() -> None:
    """Features that are one name's in one corner and another's in the other: the loss is the cross-entropy written out, at the places that count."""
    torch.manual_seed(0)
    aids = TrainingAids(channels=5, language_width=3)
    names, features = torch.randn(4, 512), torch.zeros(1, 5, 8, 8)
    corner, other = torch.randn(5), torch.randn(5)
    features[0, :, 1, 2], features[0, :, 6, 5] = corner, other
    at = torch.tensor([[2, 1], [5, 6], [0, 0]]) * 2 / 8 + 1 / 8 - 1  # (column, row), cells' centres
    places = torch.cat([at, torch.tensor([[0.0, 1.2]])])[None]
    things = torch.tensor([[3, 0, -1, 1]])  # the third is nothing, the fourth out of sight
    loss, right = recognition_loss(aids, features, things, places, names)
    standard = (names - names.mean(0)) / names.std(0)
    expected, hits = [], []
    for feature, thing in ((corner, 3), (other, 0)):
        logits = aids.thing(feature) @ aids.name(standard).T / 8
        expected.append(-logits.log_softmax(-1)[thing])
        hits.append(float(logits.argmax() == thing))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert float(right) == sum(hits) / 2
    nothing, _ = recognition_loss(aids, features, torch.full((1, 4), -1), places, names)
    assert float(nothing.detach()) == 0


def test_what_lies_where_can_be_learnt(network: RT1) -> None:
    """Following the loss alone, the eyes come to tell four colours apart, wherever they are."""
    g = torch.Generator().manual_seed(0)
    names, colours = torch.randn((4, 512), generator=g), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    optimizer = torch.optim.Adam([*network.vision.parameters(), *network.aids.parameters()], 3e-3)
    right = torch.zeros(())
    for _ in range(40):
        things, rows = torch.randint(0, 4, (8, 1), generator=g), torch.randint(1, 7, (8, 2), generator=g)
        pictures = torch.zeros(8, 3, 64, 64)
        for k in range(8):
            row, column = (rows[k] * 8).tolist()
            pictures[k, :, row : row + 8, column : column + 8] = colours[things[k, 0]][:, None, None]
        places = (rows.flip(1)[:, None] + 0.5) / 4 - 1
        loss, right = recognition_loss(network.aids, network.vision(pictures, torch.zeros(8, 16)), things, places, names)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(right) == 1


def test_words_are_left_out_and_the_whole_never() -> None:
    sentence = torch.randn(200, 9, 512)
    left = without_words(sentence, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(left[:, 0], sentence[:, 0])
    gone = (left[:, 1:] == 0).all(-1)
    assert torch.equal(left[:, 1:][~gone], sentence[:, 1:][~gone])
    assert abs(float(gone.float().mean()) - 0.25) < 0.04
    assert without_words(sentence, 0.0, torch.Generator()) is sentence


def test_a_reader_knows_the_order_of_words_and_no_padding() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reader = SentenceReader(16, 6)
    whole, pieces = torch.randn(1, 1, 512), torch.randn(1, 6, 512)
    pieces[:, 4:] = 0
    sentence = torch.cat([whole, pieces], dim=1)
    swapped = sentence[:, [0, 2, 1, 3, 4, 5, 6]]
    assert (reader(swapped) - reader(sentence)).abs().max() > 1e-3
    short = SentenceReader(16, 4)
    bias = reader.block.relative_bias[:, 2:-2]  # of distances −4 … 4
    short.load_state_dict({**reader.state_dict(), "block.relative_bias": bias})
    torch.testing.assert_close(short(sentence[:, :5]), reader(sentence))
    empty = torch.cat([whole, torch.zeros(1, 6, 512)], dim=1)
    torch.testing.assert_close(reader(empty), reader.vector_in(whole[:, 0]) + reader.gathered_in.bias)
    with pytest.raises(DataError, match=r"\(batch, 7, 512\) numbers, got \(1, 5, 512\)"):
        reader(sentence[:, :5])


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
    settings = {
        "kind": "rt1",
        "config": {**asdict(CONFIG), "head": HEAD, "execution": EXECUTION},
        "tensors": network.state_dict(),
        "contract": contract({"front": 64}),
    }
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
        del tensors["head.out.bias"]
    else:
        tensors["head.extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"head\.out\.bias" if change == "missing" else r"head\.extra"):
        ornstein.load(_save(network, tmp_path / "p", tensors=tensors))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contract": None}, "no contract.json"),
        ({"config": {**asdict(CONFIG), "head": HEAD, "execution": EXECUTION, "width": 64}}, "do not fit"),
        ({"config": {**asdict(CONFIG), "head": {**HEAD, "kind": "bin"}, "execution": EXECUTION}}, "does not fit an RT-1"),
        ({"config": {**asdict(CONFIG), "head": HEAD, "execution": {**EXECUTION, "every": 2}}}, "does not fit an RT-1"),
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
