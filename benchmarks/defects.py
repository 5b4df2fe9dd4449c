"""Real defects of diffusion code, each as one change to ours: what `replay_defects.py` injects. `old` stands once in `file`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """id; what is wrong; the file below src/ornstein; text and what replaces it; the tests that should see it."""

    id: str
    what: str
    file: str
    old: str
    new: str
    tests: str = "tests/diffusion"


_SAMPLERS, _SAMPLING, _SCHEDULE = (f"diffusion/{name}.py" for name in ("samplers", "sampling", "schedule"))
_LIKELIHOOD, _PREDICTIONS, _WEIGHTING = (f"diffusion/{name}.py" for name in ("likelihood", "predictions", "weighting"))
_OBJECTIVE, _GUIDANCE, _NOISE = (f"diffusion/{name}.py" for name in ("objective", "guidance", "noise"))

DEFECTS = (
    # Time steps
    Defect(
        "stride",
        "the previous step is t − T//n, whatever the spacing",
        _SAMPLING,
        "        self.levels = tuple(self.schedule.level(t) for t in [*self._times(), self.end])\n",
        "        self.levels = tuple(self.schedule.level(t) for t in [*self._times(), self.end])\n"
        "        stride = self.schedule.num_steps // self.num_steps\n"
        "        shifted = [self.schedule.level(max(level.t - stride, 0)) for level in self.levels[:-1]]\n"
        "        self.levels = (self.levels[0], *shifted)\n",
    ),
    Defect(
        "trailing-rounding",
        "trailing steps by ⌊T/n⌋, wrong where n does not divide T",
        _SAMPLING,
        "round(num_train - k * num_train / num_steps)",
        "num_train - k * (num_train // num_steps)",
    ),
    Defect("offset-beyond-T", "an offset leads past T", _SAMPLING, "[1 + (k * num_train) // num_steps", "[(k + 1) * num_train // num_steps + 1"),
    Defect("linspace-misses-T", "linspace starts one step below T", _SAMPLING, "[1 + round(last -", "[round(last -"),
    Defect(
        "t-from-zero",
        "t is drawn from 0 … T: the data themselves are trained on as noise",
        _OBJECTIVE,
        "torch.randint(1, num_steps + 1,",
        "torch.randint(0, num_steps + 1,",
    ),
    Defect("last-t-never-drawn", "t is drawn from 1 … T − 1", _OBJECTIVE, "torch.randint(1, num_steps + 1,", "torch.randint(1, num_steps,"),
    Defect(
        "t-off-by-one-network",
        "a network that counts from 0 gets our t",
        "interop/diffusers.py",
        "self.network(x_t, t - 1,",
        "self.network(x_t, t,",
        "tests/interop",
    ),
    Defect("band-off-by-one", "loss bands count t from 0", _OBJECTIVE, "(result.t - 1) * bands", "result.t * bands"),
    # Schedules
    Defect("alpha-for-alpha-bar", "√α̅ and α̅ are mixed up", _SCHEDULE, '"alphas": alpha_bars.sqrt(),', '"alphas": alpha_bars,'),
    Defect("sqrt-dropped", "σ is the variance", _SCHEDULE, '"sigmas": variances.sqrt(),', '"sigmas": variances,'),
    Defect("scaled-linear", "scaled-linear betas are not squared", _SCHEDULE, "return cls(roots**2)", "return cls(roots)"),
    Defect("cosine-schedule", "the cosine schedule's offset is in its divisor only", _SCHEDULE, "torch.cos((time + offset) / (1", "torch.cos(time / (1"),
    Defect(
        "zero-snr-rescaling",
        "zero-SNR rescaling straightens α̅ instead of √α̅",
        _SCHEDULE,
        "roots = self.alphas[1:]",
        "roots = self.alpha_bars[1:]",
    ),
    Defect(
        "zero-snr-division",
        "ε where no signal is left: divided by zero without a word",
        _PREDICTIONS,
        "isinstance(divisor, Tensor) else divisor == 0:",
        "isinstance(divisor, Tensor) else False:",
    ),
    Defect(
        "forward-variance",
        "the forward step adds β ε instead of √β ε",
        _SCHEDULE,
        "(part.sqrt().to(x_previous.dtype).to(x_previous.device) for part in (1 - beta, beta))",
        "(part.to(x_previous.dtype).to(x_previous.device) for part in ((1 - beta).sqrt(), beta))",
    ),
    # Predictions, objective
    Defect("score-sign", "the score points away from the data", _PREDICTIONS, '("score", "epsilon"): _Conversion(None, lambda a, s: (0.0, -s))', '("score", "epsilon"): _Conversion(None, lambda a, s: (0.0, s))'),
    Defect("v-sign", "v = α ε + σ x_0", _PREDICTIONS, "return alpha * eps - sigma * x_0", "return alpha * eps + sigma * x_0"),
    Defect("loss-sum-vs-mean", "the loss sums over a sample's numbers", _OBJECTIVE, ".square().flatten(1).mean(1)", ".square().flatten(1).sum(1)"),
    Defect(
        "min-snr-v",
        "min-SNR weights for v with SNR where SNR + 1 belongs",
        _WEIGHTING,
        "weight = torch.where(signal > 0, of_eps * signal, of_x_0 * schedule.sigma(t) ** 2)",
        "weight = of_eps",
    ),
    Defect(
        "half-precision-loss",
        "the loss is taken in the network's half precision",
        _OBJECTIVE,
        "precision = torch.promote_types(x_0.dtype, torch.float32)",
        "precision = predicted.dtype",
    ),
    # Samplers
    Defect("beta-tilde-for-beta", "the large variance is the small one", _SAMPLERS, 'variance = small if self.variance == "small" else self.schedule.jump_variance(now.t, then.t)', "variance = small"),
    Defect("noise-at-last-step", "noise is added at the last step", _SAMPLERS, "math.sqrt(variance) if then.t > 0 else 0.0", "math.sqrt(variance)"),
    Defect(
        "eta-ignored",
        "η's noise is added without room made for it",
        _SAMPLERS,
        "math.sqrt(max(then.sigma**2 - fresh**2, 0.0)) / now.sigma",
        "then.sigma / now.sigma",
    ),
    Defect("heun-last-step", "Heun takes the second slope alone", _SAMPLERS, "(slope + slope_then) / 2", "slope_then"),
    Defect(
        "wrong-sigma-index",
        "2M's ratio of steps takes σ_s0 for σ_s1",
        _SAMPLERS,
        "h_before = _half_log_snr(now) - _half_log_snr(self.levels[index - 1])",
        "h_before = _half_log_snr(then) - _half_log_snr(now)",
    ),
    Defect("sde-noise", "the SDE solver's noise has e^{−h} for e^{−2h}", _SAMPLERS, "deviation = then.sigma * math.sqrt(-math.expm1(-2 * h))", "deviation = then.sigma * math.sqrt(-math.expm1(-h))"),
    Defect("lower-order-flag", "the third-order solver starts with order one", _SAMPLERS, "if index == 0 and self._correction:", "if False:"),
    Defect("repeated-last-sigma", "the last level is repeated: the last step does nothing", _SAMPLING, "[*self._times(), self.end]", "[*self._times(), self.end or self._times()[-1]]"),
    Defect(
        "half-precision-state",
        "the state is kept in half precision",
        _SAMPLING,
        "start = noise.to(torch.promote_types(noise.dtype, torch.float32))",
        "start = noise",
    ),
    Defect(
        "clip-before-conversion",
        "the prediction is clipped instead of x̂_0",
        _SAMPLING,
        "            predicted = predicted.to(x.dtype)\n",
        "            predicted = predicted.to(x.dtype)\n"
        "        if sampler.clip is not None:\n"
        "            predicted = predicted.clamp(-sampler.clip, sampler.clip)\n",
    ),
    # Randomness
    Defect(
        "seed-by-batch-position",
        "a sample's noise depends on its place in the batch",
        _NOISE,
        "local.counter[3] = index",
        "local.counter[3] = self.sample_indices.index(index)",
    ),
    Defect("noise-reused", "each step adds the same noise", _NOISE, "return self._draw(step + 1, shape)", "return self._draw(1, shape)"),
    Defect("resume-noise", "a training draws the same noise at each step", "training/randomness.py", "SeedSequence([seed, step, rank])", "SeedSequence([seed, 0, rank])", "tests/training"),
    Defect(
        "ema-buffers",
        "the moving average forgets the buffers",
        "training/ema.py",
        "            mine.copy_(theirs)\n",
        "            pass\n",
        "tests/training",
    ),
    # Guidance
    Defect("w-minus-one", "w − 1 where w belongs", _GUIDANCE, "guided = without + scale * (given - without)", "guided = without + (scale - 1) * (given - without)"),
    Defect("guidance-off-below-one", "guidance is silently off for 0 < w < 1", _GUIDANCE, "        if scale == 1.0:\n", "        if 0.0 < scale <= 1.0:\n"),
    Defect("null-order", "the two branches are exchanged", _GUIDANCE, "without, given = denoiser(", "given, without = denoiser("),
    Defect("rescale-guidance", "rescaled to the unconditional branch's spread", _GUIDANCE, "else self._rescaled(guided, given)", "else self._rescaled(guided, without)"),
    Defect(
        "cfg-drop-inverted",
        "captions are kept where they should be dropped",
        "recipes/text_to_image.py",
        ".random() >= recipe.condition_drop",
        ".random() < recipe.condition_drop",
        "tests/recipes/test_picture_recipes.py",
    ),
    # Likelihood
    Defect("hutchinson-scale", "random probes of the wrong size", _LIKELIHOOD, "generator=rng, device=x.device).to(x.dtype) * 2 - 1", "generator=rng, device=x.device).to(x.dtype) * 3 - 1.5"),
    Defect("divergence-sign", "the divergence is subtracted", _LIKELIHOOD, "return prior[:, None] + end", "return prior[:, None] - end"),
    Defect("dequantisation", "whole numbers are not spread over their interval", _LIKELIHOOD, "(whole.double() + inside) * (2 / levels)", "(whole.double() + 0 * inside) * (2 / levels)"),
    Defect("bpd-offset", "bits for 256 levels over [0, 1], the data lie in [−1, 1]", _LIKELIHOOD, "bits + math.log2(levels / 2)", "bits + math.log2(levels)"),
    Defect("prior-left-out", "the bound leaves out its term at T", _LIKELIHOOD, "return self.prior + self.decoder +", "return self.decoder +"),
    Defect("unet-variance", "the predicted variance is taken for a part of the picture", "interop/diffusers.py", "predicted = predicted[:, : x_t.shape[1]]", "pass", "tests/interop"),
)  # fmt: skip
