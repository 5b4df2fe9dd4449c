"""The training loop. One step:

    batch  → loss_fn(model, batch, rng) → gradient → clipped → AdamW at lr(step) → moving average

Everything in a step is a function of its number: which samples (`sample_indices`), which noise (`step_seeds`), which
learning rate (`learning_rate_at`). So a checkpoint needs weights, moments and the number, and an interrupted and
resumed training ends with the same bits as one that ran through, on the same machine with as many processes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ornstein.core.errors import TrainingDivergedError, TrainingError
from ornstein.training.batches import Batch, prefetched
from ornstein.training.curves import draw_losses
from ornstein.training.ema import ExponentialMovingAverage
from ornstein.training.export import describe, export_model, machine, source_commit
from ornstein.training.interruption import EXIT_CODE, StopRequest
from ornstein.training.learning_rate import learning_rate_at
from ornstein.training.objective import LossFn, Objective, Window
from ornstein.training.optimization import Optimization, adamw, uses_bf16
from ornstein.training.randomness import borrowed_global_generator, step_seeds
from ornstein.training.report import Reporter
from ornstein.training.run import RunFolder, require_same_recipe
from ornstein.training.sanity import is_overfitting_one_batch
from ornstein.training.state import TrainingState

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract

Preview = Callable[[Any, int, Path], None]


@dataclass(frozen=True)
class TrainResult:
    """What a finished training leaves.

    model: the moving average, in evaluation mode. model_path: the exported checkpoint. loss: mean over the steps of the
    log's last line. seconds: spent training, over all sessions of the run.
    """

    model: nn.Module
    model_path: Path
    steps: int
    loss: float
    seconds: float


def train(
    model: nn.Module,
    loss_fn: LossFn,
    batch_of: Callable[[NDArray[np.int64]], Batch],
    optimization: Optimization,
    out: Path,
    *,
    recipe: str,
    kind: str,
    config: Mapping[str, Any],
    hyper_parameters: Mapping[str, Any] | None = None,
    preview: Preview | None = None,
    with_average: Callable[[nn.Module], None] | None = None,
    contract: EmbodimentContract | None = None,
    card: str = "",
    extra_files: Mapping[str, bytes | Mapping[str, Any]] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainResult:
    """Train `model` in the folder `out`, and export the moving average of its weights to `out/model`.

    Runs on what accelerate finds: one device, or under torchrun or `accelerate launch` several, data parallel.

    Args:
        model: with float32 weights; trained in place.
        loss_fn: `(model, batch, rng)` → a scalar, the mean over the batch, or that and a dictionary of numbers to log.
            All its randomness comes from `rng`, on the batch's device.
        batch_of: sample numbers → that batch, as tensors on the CPU. A pure function; called in another thread.
        recipe: its name. kind: of the checkpoint. config: JSON from which that kind's class rebuilds the network.
        hyper_parameters: the whole recipe as JSON, kept with the checkpoints and compared on resuming.
        preview: `(averaged model, step, path)` draws something to look at; `path` is the .png to write.
        with_average: is handed the moving average before the first step, for an objective that takes its targets from it.
        contract: of a policy. card: markdown about the data, put into the model's card.
        extra_files: go into every checkpoint; see `write_checkpoint`.
        resume: go on from the newest whole checkpoint in `out`. overwrite: delete the run that is there.

    Raises:
        TrainingError: it cannot start, resume or go on. CheckpointError: a checkpoint cannot be written.
        SystemExit: 130, after Ctrl-C or SIGTERM: a checkpoint was saved first.
    """
    training = _Training(model, loss_fn, optimization, RunFolder(out), _accelerator(optimization), recipe, preview)
    training.describe_as(kind, config, hyper_parameters, contract, card, extra_files)
    if with_average is not None:
        with_average(training.ema.model)
    with training.reporter:
        try:
            training.open(resume=resume, overwrite=overwrite)
            training.run_steps(batch_of)
            return training.finish()
        finally:
            training.run.close()


class _Training:
    """The state of one call of `train`."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        optimization: Optimization,
        run: RunFolder,
        accelerator: Accelerator,
        recipe: str,
        preview: Preview | None,
    ) -> None:
        self.optimization, self.recipe, self.preview = optimization, recipe, preview
        self.run, self.accelerator = run, accelerator
        self.device, self.main = accelerator.device, accelerator.is_main_process
        self.reporter = Reporter(recipe, optimization.steps, optimization.batch_size, enabled=self.main)
        _require_float32(model)
        self.model = model.to(self.device).train()
        if optimization.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bf16 = uses_bf16(optimization, self.device)
        optimizer = adamw(model, optimization, self.device)
        self.objective, self.optimizer = accelerator.prepare(Objective(model, loss_fn, bf16=self.bf16), optimizer)
        # After `prepare`, which gives every process the first one's weights.
        self.ema = ExponentialMovingAverage(model, optimization.ema_decay)
        self.state = TrainingState(model, self.ema, optimizer)
        if optimization.compile:
            model.compile()
        self.one_batch, self._first_loss = is_overfitting_one_batch(), math.nan
        self._machine, self._commit = machine(), source_commit()

    def describe_as(
        self,
        kind: str,
        config: Mapping[str, Any],
        hyper_parameters: Mapping[str, Any] | None,
        contract: EmbodimentContract | None,
        card: str,
        extra_files: Mapping[str, bytes | Mapping[str, Any]] | None,
    ) -> None:
        """What goes into the checkpoints beside weights. Checked now: the first one may be an hour away."""
        hyper_parameters = hyper_parameters or {"config": config, "optimization": asdict(self.optimization)}
        if self.one_batch:
            hyper_parameters = {**hyper_parameters, "overfit_one_batch": True}
        try:
            json.dumps(config, allow_nan=False)
            self.hyper_parameters = json.loads(json.dumps(hyper_parameters, default=str, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise TrainingError(f"the configuration of recipe {self.recipe!r} cannot be written as JSON: {error}") from error
        self.kind, self.config, self.contract, self.card = kind, config, contract, card
        self.extra_files = extra_files or {}

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Take the folder and, to resume, the newest checkpoint that is whole."""
        if self.main:
            self.run.open(resume=resume, overwrite=overwrite)
        self.accelerator.wait_for_everyone()
        if not resume:
            return
        checkpoint = self.run.newest_valid(self.reporter.warn)
        if checkpoint.kind != self.kind:
            raise TrainingError(f"cannot resume {checkpoint.path}: it is of kind {checkpoint.kind!r}, not {self.kind!r}")
        # The configuration too: it may hold what hyper-parameters only name, such as a first stage's fingerprint.
        now = {"config": json.loads(json.dumps(self.config)), **self.hyper_parameters}
        then = {"config": checkpoint.config, **checkpoint.provenance["hyper_parameters"]}
        require_same_recipe(now, then, checkpoint.path)
        if self.contract is not None and checkpoint.contract is not None:
            checkpoint.contract.require_match(self.contract, str(checkpoint.path), "the training data")
        self.state.restore(checkpoint)
        if self.main:
            self.run.rewind_log(self.state.step)
        self.reporter.say(f"resuming at step {self.state.step} of {self.optimization.steps}")

    def run_steps(self, batch_of: Callable[[NDArray[np.int64]], Batch]) -> None:
        """All remaining steps, with what is due between them."""
        settings, accelerator = self.optimization, self.accelerator
        steps = range(self.state.step, settings.steps)
        batches = prefetched(
            batch_of,
            steps,
            settings.batch_size,
            device=self.device,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            channels_last=settings.channels_last,
            first_only=self.one_batch,
        )
        window = Window(settings.batch_size)
        if self.state.window:
            window.restore(self.state.window, self.device)
        rng = torch.Generator(self.device)
        self.reporter.start(self.state.step)
        started = time.perf_counter() - self.state.seconds
        with StopRequest() as stop:
            try:
                for step, batch in zip(steps, batches, strict=True):
                    loss, norm, parts, stopping = self._update(step, batch, rng, stop)
                    self.reporter.step(step + 1, loss, learning_rate_at(step, settings))
                    window.add(loss, norm, parts)
                    self.state.seconds = time.perf_counter() - started
                    self._between_steps(window, stopping)
            finally:
                batches.close()

    def _update(
        self, step: int, batch: Batch, rng: torch.Generator, stop: StopRequest
    ) -> tuple[float, float, dict[str, Tensor], bool]:
        """One step; (loss, gradient norm, parts to log, whether to stop). Nothing changes where loss or gradient is not finite."""
        accelerator = self.accelerator
        noise_seed, dropout_seed = step_seeds(self.optimization.seed, step, accelerator.process_index)
        rng.manual_seed(noise_seed)
        with borrowed_global_generator(dropout_seed, self.device):
            loss, parts = self.objective(batch, rng)
            accelerator.backward(loss)
        largest = math.inf if self.optimization.max_grad_norm is None else self.optimization.max_grad_norm
        norm = accelerator.clip_grad_norm_(self.model.parameters(), largest)
        mean_loss, stopping = self._agreed(loss.detach(), stop.made)
        self._require_finite(step, mean_loss, float(norm))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.optimization)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model, step)
        self.state.step = step + 1
        if step == 0:
            self._first_loss = mean_loss
        return mean_loss, float(norm), parts, stopping

    def _agreed(self, loss: Tensor, stop: bool) -> tuple[float, bool]:
        """The mean loss over the processes, and whether any of them was told to stop: all must stop at the same step."""
        if self.accelerator.num_processes == 1:
            return float(loss), stop
        both = self.accelerator.reduce(torch.stack([loss, torch.as_tensor(float(stop), device=self.device)]), "mean")
        return float(both[0]), float(both[1]) > 0

    def _require_finite(self, step: int, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        newest = self.run.newest()
        kept = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        raise TrainingDivergedError(
            f"training diverged at step {step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, "
            f"learning rate {learning_rate_at(step, self.optimization):.3g}; {kept}; "
            "check the data for values that are not finite, or start anew with a lower learning_rate, "
            "more warmup_steps or precision fp32"
        )

    def _between_steps(self, window: Window, stopping: bool) -> None:
        """Log, checkpoint, preview, stop: whatever is due now."""
        settings, done = self.optimization, self.state.step
        last = done == settings.steps
        if done % settings.log_every == 0 or last:
            row = window.close(self.accelerator)
            self.state.loss = row["loss"]
            if self.main:
                rate = learning_rate_at(done - 1, settings)
                self.run.log({"step": done, "seconds": round(self.state.seconds, 1), "learning_rate": rate, **row})
        if (done % settings.checkpoint_every == 0 or last or stopping) and self.main:
            self.state.window = window.to_json()
            self._save()
        if self.main and (done % settings.preview_every == 0 or last):
            self._show(self.preview, done)
        if stopping and not last:
            self.accelerator.wait_for_everyone()
            self.reporter.say(f"stopped at step {done} of {settings.steps}; go on with the same command and --resume")
            raise SystemExit(EXIT_CODE)

    def _show(self, preview: Preview | None, done: int) -> None:
        """The loss so far as a plot, and a preview; one that cannot be written is no reason to lose the training."""
        try:
            draw_losses(self.run.log_file, self.run.out / "loss.png")
            if preview is not None:
                with torch.no_grad(), self.run.drawing_preview(done) as path:
                    preview(self.ema.model, done, path)
        except OSError as error:
            self.reporter.warn(f"no preview of step {done}: {(error.strerror or str(error)).lower()}")

    def _save(self) -> None:
        self.state.save(
            self.run.checkpoint_at(self.state.step),
            kind=self.kind,
            config=self.config,
            provenance=self._provenance(),
            card=describe(self._provenance(), self.kind, self.card),
            contract=self.contract,
            extra_files=self.extra_files,
        )
        self.run.prune(self.optimization.keep_checkpoints)

    def finish(self) -> TrainResult:
        """Export the moving average."""
        if self.main:
            provenance = self._provenance()
            export_model(
                self.run.model,
                self.ema.model,
                kind=self.kind,
                config=self.config,
                provenance=provenance,
                card=describe(provenance, self.kind, self.card),
                contract=self.contract,
                extra_files=self.extra_files,
            )
        self.accelerator.wait_for_everyone()
        if self.one_batch:
            said = f"{self._first_loss:.4g} at the first step, " if math.isfinite(self._first_loss) else ""
            self.reporter.say(f"one batch again and again: loss {said}{self.state.loss:.4g} over the last steps")
        return TrainResult(self.ema.model, self.run.model, self.state.step, self.state.loss, self.state.seconds)

    def _provenance(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "seed": self.optimization.seed,
            "steps": self.state.step,
            "samples": self.state.step * self.optimization.batch_size,
            "loss": self.state.loss if math.isfinite(self.state.loss) else None,
            "seconds": round(self.state.seconds, 1),
            "commit": self._commit,
            "machine": self._machine,
            "processes": self.accelerator.num_processes,
            "precision": "bf16" if self.bf16 else "fp32",
            "hyper_parameters": self.hyper_parameters,
        }


def _accelerator(optimization: Optimization) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    # Under torchrun, accelerate joins the processes of a machine without accelerator only when told to use its CPU.
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.accelerator.is_available())
    supported = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in supported:
        raise TrainingError(f"training runs on one device or data parallel, not under {accelerator.distributed_type.value}")
    if optimization.batch_size % accelerator.num_processes:
        raise TrainingError(
            f"a batch of {optimization.batch_size} cannot be shared by {accelerator.num_processes} processes: "
            "make batch_size a multiple"
        )
    return accelerator


def _require_float32(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise TrainingError(f"weights are trained in float32, but {name} is {parameter.dtype}: call model.float() first")
