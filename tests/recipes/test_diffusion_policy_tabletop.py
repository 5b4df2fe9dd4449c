"""An arm behind finished eyes, tiny: any head, chunks, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import CheckpointError, ContractError, DataError, TrainingError
from ornstein.data.demonstrations import record_demonstrations
from ornstein.data.lerobot import LeRobotDataset
from ornstein.diffusion import DDIM
from ornstein.evaluation import evaluate_suite
from ornstein.policies import RT1, PaperRT1Config, RT1Config, RT1Policy
from ornstein.recipes.diffusion_policy_tabletop import DiffusionPolicyTabletopRecipe, train_diffusion_policy_tabletop
from ornstein.recipes.diffusion_policy_tabletop_fast import (
    FastDiffusionPolicyTabletopRecipe,
    train_diffusion_policy_tabletop_fast,
)
from ornstein.simulation.tabletop import contract
from ornstein.training import Optimization

NETWORK = RT1Config(image_size=64, channels=(8, 8), blocks=(1, 1), tokens=2, width=16, depth=1, heads=2)
EXECUTION = {"every": 1, "ensemble_decay": None}


def _eyes(folder: Path, **changes: object) -> Path:
    body = contract({"front": 64})
    head = {"kind": "regression", "length": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(NETWORK, head, body)
    settings = {
        "config": {**asdict(NETWORK), "head": head, "execution": EXECUTION},
        "tensors": network.state_dict(),
        "contract": body,
    }
    write_checkpoint(folder, kind="rt1", provenance={}, card="", **{**settings, **changes})  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPolicyTabletopRecipe:
    folder = tmp_path_factory.mktemp("diffusion-policy")
    record_demonstrations(folder / "data", episodes=3, cameras={"front": 64}, plain=True)
    steps = Optimization(
        steps=4, batch_size=4, learning_rate=1e-3, warmup_steps=1, checkpoint_every=2, preview_every=4, precision="fp32"
    )
    return DiffusionPolicyTabletopRecipe(
        eyes=str(_eyes(folder / "eyes")),
        chunk=3,
        execute=2,
        optimization=steps,
        data=folder / "data",
        cache=folder / "cache",
        preview_episodes=1,
    )


@pytest.fixture(scope="module")
def trained(recipe: DiffusionPolicyTabletopRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "diffusion"
    train_diffusion_policy_tabletop(recipe, out)
    return out


def test_an_arm_has_learnt_behind_eyes_that_stayed(recipe: DiffusionPolicyTabletopRecipe, trained: Path, tmp_path: Path) -> None:
    policy, eyes = ornstein.load(trained, expect="rt1"), ornstein.load(recipe.eyes, expect="rt1")
    assert isinstance(policy, RT1Policy)
    before, after = eyes.network.state_dict(), policy.network.state_dict()
    fixed = [name for name in before if name.startswith(("reader.", "vision.", "token_learner.", "aids."))]
    assert all(torch.equal(before[name].half(), after[name].half()) for name in fixed)
    assert not torch.equal(before["arm.token_in.weight"], after["arm.token_in.weight"])
    assert policy.network.head.length == 3
    assert type(policy.network.head).__name__ == "DiffusionHead"
    card = (trained / "model" / "card.md").read_text()
    assert recipe.eyes in card
    assert "advice" not in card
    evaluate_suite(str(trained), "pick", episodes=1, out=tmp_path / "results")


def test_chunks_of_the_data_are_what_it_learns(recipe: DiffusionPolicyTabletopRecipe, tmp_path: Path) -> None:
    """A regression that is trained on one batch says that batch's chunks."""
    from ornstein.training import overfitting_one_batch

    steps = replace(recipe.optimization, steps=300, learning_rate=5e-3, checkpoint_every=300, preview_every=300, ema_decay=0.9)
    alone = replace(recipe, action_head="regression-l2", optimization=steps, word_dropout=0.0, place_noise=0.0)
    with overfitting_one_batch():
        train_diffusion_policy_tabletop(alone, tmp_path)
    policy = ornstein.load(tmp_path, expect="rt1")
    assert isinstance(policy, RT1Policy)
    assert recipe.data is not None
    data = LeRobotDataset(recipe.data)
    frames, said = np.stack(list(data.frames("front"))), []
    for episode in data.episodes:
        for row in range(episode.start, episode.stop):
            policy.reset()
            observation = {"pixels": {"front": frames[row]}, "agent_pos": data.states[row], "instruction": episode.task}
            said.append(policy.act(observation))  # type: ignore[arg-type]
    off = np.abs(np.stack(said) - data.actions)[:, :3].max(1)
    assert (off < 0.004).sum() >= 4  # the batch's four windows at least; actions reach 0.03


def test_the_same_recipe_gives_the_same_weights_and_resumes(
    recipe: DiffusionPolicyTabletopRecipe, trained: Path, tmp_path: Path
) -> None:
    train_diffusion_policy_tabletop(recipe, tmp_path / "again")
    mine, theirs = (ornstein.load(folder, expect="rt1").network.state_dict() for folder in (tmp_path / "again", trained))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    train_diffusion_policy_tabletop(recipe, tmp_path / "again", resume=True)
    with pytest.raises(TrainingError, match="action_head is 'flow', was 'diffusion'"):
        train_diffusion_policy_tabletop(replace(recipe, action_head="flow"), tmp_path / "again", resume=True)


@pytest.mark.parametrize("head", ["quantile-bins", "fast"])
def test_other_heads_do_as_well(recipe: DiffusionPolicyTabletopRecipe, tmp_path: Path, head: str) -> None:
    """What had to be fitted to the data comes back from the checkpoint."""
    steps = replace(recipe.optimization, steps=1, warmup_steps=0, checkpoint_every=1, preview_every=1)
    train_diffusion_policy_tabletop(
        replace(recipe, action_head=head, optimization=steps, ensemble_decay=0.1, execute=1), tmp_path
    )  # type: ignore[arg-type]
    policy = ornstein.load(tmp_path, expect="rt1")
    observation = {
        "pixels": {"front": np.zeros((64, 64, 3), np.uint8)},
        "agent_pos": np.zeros(7, np.float32),
        "instruction": "go",
    }
    actions = np.stack([policy.act(observation) for _ in range(4)])
    assert np.isfinite(actions).all()


def test_what_does_not_fit_is_refused(recipe: DiffusionPolicyTabletopRecipe, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="modular"):
        train_diffusion_policy_tabletop(replace(recipe, eyes="modular-tabletop"), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    bigger = replace(NETWORK, image_size=128)
    network = RT1(bigger, {"kind": "regression", "length": 1}, contract({"front": 128}))
    config = {**asdict(bigger), "head": {"kind": "regression", "length": 1}, "execution": EXECUTION}
    wide = _eyes(tmp_path / "wide", config=config, tensors=network.state_dict(), contract=contract({"front": 128}))
    with pytest.raises(ContractError, match="64"):
        train_diffusion_policy_tabletop(replace(recipe, eyes=str(wide)), tmp_path / "b")
    from ornstein.policies import PaperRT1

    small = PaperRT1Config(variant="b0", image_size=64, width=32, depth=1, heads=2, key_size=8)
    paper = _eyes(tmp_path / "paper", config=asdict(small), tensors=PaperRT1(small).state_dict())
    with pytest.raises(CheckpointError, match="published size"):
        train_diffusion_policy_tabletop(replace(recipe, eyes=str(paper)), tmp_path / "c")
    with pytest.raises(DataError, match="1 to 3"):
        replace(recipe, execute=4)


def test_a_student_says_in_one_step_what_its_teacher_says_in_ten(
    recipe: DiffusionPolicyTabletopRecipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From the same noise, on the demonstrations' own contexts: nearer to it than the teacher's own single step."""
    folder = tmp_path_factory.mktemp("student")
    steps = replace(recipe.optimization, steps=150, checkpoint_every=150, preview_every=150, batch_size=16, ema_decay=0.9)
    train_diffusion_policy_tabletop(replace(recipe, optimization=steps), folder / "teacher")
    assert recipe.data is not None
    shutil.copytree(recipe.data, folder / "teacher" / "data")  # what a run has recorded is what its student learns from
    distilled = FastDiffusionPolicyTabletopRecipe(
        teacher=str(folder / "teacher"),
        optimization=replace(steps, steps=250, checkpoint_every=250, preview_every=250),
        preview_episodes=1,
    )
    train_diffusion_policy_tabletop_fast(distilled, folder / "student")
    teacher, student = (ornstein.load(folder / name, expect="rt1").network for name in ("teacher", "student"))
    before, after = teacher.state_dict(), student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head."))
    assert [one.head.sampler.num_steps for one in (teacher, student)] == [10, 1]
    noise, context = torch.randn(200, 21), torch.randn(200, NETWORK.width)
    with torch.inference_mode():
        wanted, said = (one.head.from_noise(noise, context) for one in (teacher, student))
        blunt = DDIM(teacher.head.schedule, 1, prediction="sample", clip=1.0).sample(teacher.head.denoise, noise, context)
    assert (said - wanted).square().mean() < 0.3 * (blunt - wanted).square().mean()
    assert "student" in (folder / "student" / "model" / "card.md").read_text()
    assert not (folder / "student" / "data").exists()
    with pytest.raises(CheckpointError, match="another recipe"):
        train_diffusion_policy_tabletop_fast(replace(distilled, teacher=str(folder / "student")), folder / "again")


def test_only_noise_can_be_distilled(recipe: DiffusionPolicyTabletopRecipe, tmp_path: Path) -> None:
    steps = replace(recipe.optimization, steps=1, warmup_steps=0, checkpoint_every=1, preview_every=1)
    train_diffusion_policy_tabletop(replace(recipe, action_head="mixture", optimization=steps), tmp_path / "teacher")
    with pytest.raises(CheckpointError, match="mixture"):
        train_diffusion_policy_tabletop_fast(
            FastDiffusionPolicyTabletopRecipe(teacher=str(tmp_path / "teacher")), tmp_path / "student"
        )


def test_a_mixture_of_data_sets_is_what_it_learns_from(recipe: DiffusionPolicyTabletopRecipe, tmp_path: Path) -> None:
    record_demonstrations(tmp_path / "more", episodes=1, seed=70, cameras={"front": 64}, plain=True)
    mixed = replace(recipe, also=(tmp_path / "more",), weights=(1.0, 3.0), cache=tmp_path / "cache")
    train_diffusion_policy_tabletop(mixed, tmp_path / "run")
    policy = ornstein.load(tmp_path / "run", expect="rt1")
    assert recipe.data is not None
    frames = sum(len(LeRobotDataset(folder)) for folder in (recipe.data, tmp_path / "more"))
    assert policy.contract.statistics is not None
    assert policy.contract.statistics.count == frames
    said = policy.provenance["hyper_parameters"]
    assert (said["also"], said["weights"]) == ([str(tmp_path / "more")], [1.0, 3.0])
    card = (tmp_path / "run" / "model" / "card.md").read_text()
    assert "3 demonstrations" in card
    assert "1 demonstrations" in card
    with pytest.raises(DataError, match="1 data sets need as many weights"):
        replace(recipe, weights=(1.0, 3.0))
