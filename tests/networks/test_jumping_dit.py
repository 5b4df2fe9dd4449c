from __future__ import annotations

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.dit import DiT, DiTConfig, TextCondition
from ornstein.networks.jumping_dit import JumpingDiT

CONFIG = DiTConfig(latent_size=8, patch_size=2, width=32, depth=2, heads=2, text_depth=1, text_length=6)


def _shaken(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.fixture
def teacher() -> DiT:
    """With the zero-initialised layers shaken, so that everything has an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = DiT(CONFIG).eval()
        _shaken(teacher)
    teacher.piece_std.fill_(2.0)
    return teacher


@pytest.fixture
def student(teacher: DiT) -> JumpingDiT:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        student = JumpingDiT(CONFIG).eval()
    student.start_from(teacher)
    return student


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, TextCondition, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(6)[None] < torch.tensor([2, 6, 4])[:, None]
    condition = TextCondition(torch.randn(3, 6, 512, generator=g), mask)
    x = torch.randn(3, 4, 8, 8, generator=g)
    return x, torch.tensor([1, 500, 1000]), torch.tensor([0, 250, 0]), condition, torch.tensor([1.0, 4.0, 7.0])


def test_a_student_begins_as_its_teacher_whatever_the_goal_and_the_scale(teacher: DiT, student: JumpingDiT) -> None:
    x, t, s, condition, scale = _inputs()
    assert torch.equal(student(x, t, s, condition, scale), teacher(x, t, condition))
    assert torch.equal(student(x, t, t, condition, -scale), teacher(x, t, condition))


def test_goal_and_scale_have_an_effect_once_trained(student: JumpingDiT) -> None:
    """What starts without effect must still get a gradient; and each row is told its own."""
    x, t, s, condition, scale = _inputs()
    student(x, t, s, condition, scale).square().sum().backward()
    for added in (student.goal_in, student.scale_in):
        weight = added.get_submodule("2").weight
        assert isinstance(weight.grad, torch.Tensor)
        assert float(weight.grad.abs().max()) > 0
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        _shaken(student)
        before = student(x, t, s, condition, scale)
        for changed in (
            (x, t, s + torch.tensor([0, 1, 0]), condition, scale),
            (x, t, s, condition, scale * torch.tensor([1, 2, 1])),
        ):
            different = (student(*changed) - before).abs().amax((1, 2, 3)) > 1e-5
            assert different.tolist() == [False, True, False]


def test_a_teacher_of_other_sizes_is_refused(teacher: DiT) -> None:
    with pytest.raises(DataError, match="own sizes"):
        JumpingDiT(DiTConfig(latent_size=8, patch_size=2, width=64, depth=2, heads=2)).start_from(teacher)


def test_one_scale_a_sample(student: JumpingDiT) -> None:
    x, t, s, condition, scale = _inputs()
    with pytest.raises(DataError, match="one guidance scale a sample"):
        student(x, t, s, condition, scale[:1])
