from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ornstein.training.loop as loop
from ornstein.core import CheckpointError, TrainingError, read_checkpoint
from ornstein.training import Batch, learning_rate_at
from ornstein.training.batches import sample_indices
from ornstein.training.randomness import step_seeds


def _by_hand(tiny: ModuleType, optimization: Any) -> tuple[nn.Module, dict[str, Tensor], list[float], list[float]]:
    """The same training in plain torch: model, moving average of the parameters, losses, gradient norms."""
    model = tiny.network().train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=optimization.weight_decay, foreach=False)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses, norms = [], []
    for step in range(optimization.steps):
        noise_seed, dropout_seed = step_seeds(optimization.seed, step, 0)
        rng = torch.Generator().manual_seed(noise_seed)
        batch = tiny.batch_of(sample_indices(step, optimization.batch_size))
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(dropout_seed)
            loss, _ = tiny.noisy_loss(model, batch, rng)
        optimizer.zero_grad()
        loss.backward()
        squares = sum(float(p.grad.double().square().sum()) for p in model.parameters())
        norms.append(math.sqrt(squares))
        for p in model.parameters():
            p.grad.mul_(min(1.0, optimization.max_grad_norm / norms[-1]))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, optimization)
        optimizer.step()
        losses.append(loss.item())
        decay = min(optimization.ema_decay, (1 + step) / (10 + step))
        for name, p in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.detach()
    return model, average, losses, norms


def test_it_is_the_loop_one_would_write_by_hand(tmp_path: Path, tiny: ModuleType) -> None:
    optimization = tiny.settings(max_grad_norm=0.3, weight_decay=0.1, log_every=1)
    model = tiny.network()
    result = tiny.run(tmp_path, optimization, model=model)
    expected, average, losses, norms = _by_hand(tiny, optimization)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    for name, tensor in average.items():
        torch.testing.assert_close(dict(result.model.named_parameters())[name], tensor, rtol=1e-4, atol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [row["gradient_norm"] for row in rows] == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 0.3 > min(norms)  # clipped at times, and at times not
    assert [row["learning_rate"] for row in rows] == [learning_rate_at(k, optimization) for k in range(12)]


def test_what_it_leaves(tmp_path: Path, tiny: ModuleType) -> None:
    result = tiny.run(tmp_path, card="Trained on noise.", extra_files={"words.txt": b"noise"})
    assert (result.steps, result.model_path) == (12, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-0000010", "step-0000012"]
    exported = read_checkpoint(result.model_path, expect_kind="tiny")
    assert exported.config == {"width": 6}
    assert exported.read_bytes("words.txt") == b"noise"
    assert exported.provenance["steps"] == 12
    assert exported.provenance["samples"] == 48
    assert exported.provenance["hyper_parameters"]["optimization"]["learning_rate"] == 1e-2
    assert exported.provenance["loss"] == result.loss
    assert "Trained on noise." in (result.model_path / "card.md").read_text()
    stored = exported.tensors()
    for name, tensor in result.model.state_dict().items():
        narrowed = tensor.half() if tensor.ndim >= 2 else tensor
        np.testing.assert_array_equal(stored[name], narrowed.numpy())
    assert not result.model.training
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "step-0000012")
    weights = {name: array.dtype for name, array in checkpoint.tensors().items() if "num_batches" not in name}
    assert set(weights.values()) == {np.dtype(np.float32)}
    assert checkpoint.read_bytes("words.txt") == b"noise"


def test_the_log_holds_means_since_its_last_line(tmp_path: Path, tiny: ModuleType) -> None:
    tiny.run(tmp_path / "fine", tiny.settings(log_every=1))
    tiny.run(tmp_path / "coarse", tiny.settings(log_every=5))
    fine, coarse = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("fine", "coarse")
    )
    assert [row["step"] for row in coarse] == [5, 10, 12]
    for row, part in zip(coarse, (fine[:5], fine[5:10], fine[10:]), strict=True):
        for key in ("loss", "noise", "gradient_norm"):
            assert row[key] == pytest.approx(np.mean([each[key] for each in part]), rel=1e-5)
        assert row["one"] == 1.0
        assert row["samples_per_second"] > 0


def test_seeds_decide_and_the_global_generator_is_untouched(tmp_path: Path, tiny: ModuleType) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    weights = []
    for k, seed in enumerate((0, 0, 1)):
        torch.rand(k)  # whatever was drawn before does not matter
        state = torch.get_rng_state()
        tiny.run(tmp_path / str(k), tiny.settings(seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(tiny.final_state(tmp_path / str(k)))
    tiny.assert_same_bits(weights[0], weights[1])
    with pytest.raises(AssertionError, match="bits differ"):
        tiny.assert_same_bits(weights[0], weights[2])
    assert np.random.get_state()[1].tolist() == before[1]


def test_previews_show_the_average_in_evaluation_mode(tmp_path: Path, tiny: ModuleType) -> None:
    seen: list[tuple[int, str]] = []
    trained = tiny.network()

    def preview(model: nn.Module, step: int, path: Path) -> None:
        assert not model.training
        assert not torch.is_grad_enabled()
        assert model is not trained
        assert path.parent.is_dir()
        seen.append((step, path.name))

    tiny.run(tmp_path, preview=preview, model=trained)
    assert seen == [(4, "step-0000004.png"), (8, "step-0000008.png"), (12, "step-0000012.png")]
    tiny.run(tmp_path / "without")
    tiny.assert_same_bits(tiny.final_state(tmp_path), tiny.final_state(tmp_path / "without"))


@pytest.mark.parametrize(("where", "value"), [("loss", math.nan), ("loss", math.inf), ("gradient", math.nan)])
def test_a_loss_or_gradient_that_is_not_finite_stops(tmp_path: Path, tiny: ModuleType, where: str, value: float) -> None:
    calls = iter(range(100))
    kept: list[Tensor] = []

    def diverging(model: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        loss, _ = tiny.noisy_loss(model, batch, rng)
        if next(calls) != 7:
            return loss
        kept.append(model.head.weight.detach().clone())
        if where == "loss":
            return loss * value
        model.head.weight.register_hook(lambda gradient: gradient * value)
        return loss

    model = tiny.network()
    with pytest.raises(TrainingError, match="training diverged at step 8: loss .*learning rate") as caught:
        tiny.run(tmp_path, loss_fn=diverging, model=model)
    text = str(caught.value)
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / 'step-0000005'}" in text
    assert "lower learning_rate" in text
    assert "\n" not in text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000005"]
    read_checkpoint(tmp_path / "checkpoints" / "step-0000005")
    assert not (tmp_path / "model").exists()
    torch.testing.assert_close(model.head.weight.detach(), kept[0], rtol=0, atol=0)


def test_diverging_at_once_says_that_nothing_is_kept(tmp_path: Path, tiny: ModuleType) -> None:
    def hopeless(model: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        return tiny.noisy_loss(model, batch, rng)[0] * math.nan

    with pytest.raises(TrainingError, match="diverged at step 1: .*there is no checkpoint yet"):
        tiny.run(tmp_path, loss_fn=hopeless)
    tiny.run(tmp_path)  # and the folder can be used again


def test_a_loss_that_is_no_scalar_or_no_function_of_the_weights(tmp_path: Path, tiny: ModuleType) -> None:
    with pytest.raises(TrainingError, match=r"must return a scalar .* shape \(4, 3, 4, 4\)"):
        tiny.run(tmp_path / "a", loss_fn=lambda model, batch, rng: batch["x"])
    with pytest.raises(TrainingError, match="requires_grad=False"):
        tiny.run(tmp_path / "b", loss_fn=lambda model, batch, rng: batch["x"].mean())


def test_errors_of_the_data_come_through_and_the_folder_is_released(tmp_path: Path, tiny: ModuleType) -> None:
    def broken(indices: np.ndarray) -> Batch:
        raise FileNotFoundError("episode 3")

    with pytest.raises(FileNotFoundError, match="episode 3"):
        tiny.run(tmp_path, batch_of=broken)
    tiny.run(tmp_path)


def test_what_cannot_be_kept_is_refused_before_the_first_step(tmp_path: Path, tiny: ModuleType) -> None:
    for config in ({"width": float("nan")}, {"width": {1, 2}}):
        with pytest.raises(TrainingError, match="'tiny' cannot be written as JSON"):
            tiny.run(tmp_path / "a", config=config, hyper_parameters={"a": 1})
    assert not (tmp_path / "a").exists()
    with pytest.raises(TrainingError, match=r"head.weight is torch.float64|convolution.weight is torch.float64"):
        tiny.run(tmp_path / "b", model=tiny.network().double())


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "step-0000010" in str(self) and self.name == "optimizer.safetensors":
            real(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CheckpointError, match=r"step-0000010: no space left on device; what was there before"):
        tiny.run(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000005"]
    monkeypatch.setattr(Path, "write_bytes", real)
    tiny.run(tmp_path, resume=True)
    tiny.run(tmp_path / "straight")
    tiny.assert_same_bits(tiny.final_state(tmp_path), tiny.final_state(tmp_path / "straight"))


def test_compiling_changes_no_names(tmp_path: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))  # the compiler itself is torch's to test
    model = tiny.network()
    tiny.run(tmp_path, tiny.settings(compile=True), model=model)
    assert compiled == [model]
    tiny.run(tmp_path / "eager")
    tiny.assert_same_bits(tiny.final_state(tmp_path), tiny.final_state(tmp_path / "eager"))


def test_only_data_parallel_and_batches_that_divide(monkeypatch: pytest.MonkeyPatch, tiny: ModuleType) -> None:
    import accelerate
    from accelerate.utils import DistributedType

    class Fake:
        distributed_type = DistributedType.MULTI_CPU
        num_processes = 3

        def __init__(self, **_: Any) -> None:
            pass

    monkeypatch.setattr(accelerate, "Accelerator", Fake)
    with pytest.raises(TrainingError, match="a batch of 4 cannot be shared by 3 processes"):
        loop._accelerator(tiny.settings())
    Fake.distributed_type = DistributedType.DEEPSPEED
    with pytest.raises(TrainingError, match="not under DEEPSPEED"):
        loop._accelerator(tiny.settings())
