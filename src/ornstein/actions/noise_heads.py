"""Action heads that turn noise into actions: diffusion and flow matching, on the core that draws pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.actions.heads import ActionHead
from ornstein.core.errors import DataError
from ornstein.diffusion import DDIM, NoiseSchedule, ddpm_loss, flow, flow_log_likelihood, flow_matching_loss

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

    from ornstein.core.contract import EmbodimentContract

_TIME_SIZE = 64


class ChunkDenoiser(nn.Module):
    """A residual MLP over a flat chunk; time and context scale and shift each block, as in a DiT (Peebles & Xie 2023)."""

    def __init__(self, context_size: int, numbers: int, *, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.condition_in = nn.Sequential(nn.Linear(context_size + _TIME_SIZE, width), nn.SiLU())
        self.chunk_in = nn.Linear(numbers, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth))
        modulations = [nn.Linear(width, 3 * width) for _ in range(depth)]
        self.modulations = nn.ModuleList(modulations)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.out = nn.Linear(width, numbers)
        for modulation in modulations:
            nn.init.zeros_(modulation.weight)
            nn.init.zeros_(modulation.bias)

    def forward(
        self, chunk: Float[Tensor, "batch numbers"], time: Float[Tensor, " batch"], context: Float[Tensor, "batch context"]
    ) -> Float[Tensor, "batch numbers"]:
        """
        Args:
            time: from 0 to 1.
        """
        condition = self.condition_in(torch.cat([context, _waves(time).to(context.dtype)], dim=-1))
        h: Tensor = self.chunk_in(chunk.to(context.dtype))
        for norm, modulation, layer in zip(self.norms, self.modulations, self.layers, strict=True):
            scale, shift, gate = modulation(condition).chunk(3, dim=-1)
            h = h + gate * layer((1 + scale) * norm(h) + shift)
        found: Tensor = self.out(functional.silu(h))
        return found


class DiffusionHead(ActionHead):
    """A diffusion over scaled chunks, in few steps of DDIM (Chi et al. 2023, "Diffusion Policy")."""

    def __init__(
        self,
        context_size: int,
        length: int,
        contract: EmbodimentContract,
        *,
        steps: int = 10,
        train_steps: int = 100,
        prediction: str = "sample",
        width: int = 256,
        depth: int = 3,
    ) -> None:
        """
        Args:
            steps: of DDIM. train_steps: T, of the cosine schedule. prediction: see `ornstein.diffusion.PREDICTIONS`.
            width, depth: of the denoiser.

        Raises:
            DataError: a number out of range. UnknownNameError: no such prediction.
        """
        super().__init__(context_size, length, contract)
        self.schedule, self.prediction = NoiseSchedule.cosine(num_steps=train_steps), prediction
        self.sampler = DDIM(self.schedule, steps, prediction=prediction, clip=1.0)
        self.net = ChunkDenoiser(context_size, length * self.dimensions, width=width, depth=depth)

    def denoise(self, x_t: Tensor, t: Shaped[Tensor, " batch"], context: Tensor) -> Tensor:
        """A prediction, for samplers."""
        found: Tensor = self.net(x_t, t.float() / self.schedule.num_steps, context)
        return found.to(x_t.dtype)

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """The DDPM objective."""
        scaled = self.scaled(self.checked(context, actions)).flatten(1)
        return ddpm_loss(self.denoise, scaled, context, self.schedule, self.prediction, rng, times="stratified").loss

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """DDIM from noise."""
        noise = torch.randn((len(context), self.length * self.dimensions), generator=rng, device=context.device)
        return self.unscaled(self.sampler.sample(self.denoise, noise, context).view(-1, self.length, self.dimensions))

    @property
    def has_density(self) -> bool:
        """It has, by its probability flow."""
        return True

    def log_prob(self, context: Tensor, actions: Tensor) -> Tensor:
        """See `ActionHead`; of the chunk with the first time step's noise, as `flow_log_likelihood` says,
        and of the flow without the cut at ±1 that sampling makes. Slow: for analysis."""
        scaled = self.scaled(self.checked(context, actions)).flatten(1)
        found = flow_log_likelihood(self.denoise, scaled, context, self.schedule, self.prediction, check_solver=False)
        return found.log_prob.to(scaled.device) + self.log_volume()


class FlowHead(ActionHead):
    """Flow matching over scaled chunks (Lipman et al. 2023; π0, Black et al. 2024)."""

    def __init__(
        self,
        context_size: int,
        length: int,
        contract: EmbodimentContract,
        *,
        steps: int = 10,
        early: float = 0.5,
        width: int = 256,
        depth: int = 3,
    ) -> None:
        """
        Args:
            steps: of Euler's method. early: see `flow_matching_loss`. width, depth: of the network.

        Raises:
            DataError: a number out of range.
        """
        super().__init__(context_size, length, contract)
        if steps < 1 or early < 0 or not math.isfinite(early):
            raise DataError(f"a flow takes at least one step and early ≥ 0, got {steps} and {early}")
        self.steps, self.early = steps, early
        self.net = ChunkDenoiser(context_size, length * self.dimensions, width=width, depth=depth)

    def velocity(self, x: Tensor, tau: Tensor, context: Tensor) -> Tensor:
        """dx/dτ."""
        found: Tensor = self.net(x, tau, context)
        return found.float()

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """The flow-matching objective."""
        scaled = self.scaled(self.checked(context, actions)).flatten(1)
        return flow_matching_loss(self.velocity, scaled, context, rng, early=self.early)

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """Euler's method from noise."""
        noise = torch.randn((len(context), self.length * self.dimensions), generator=rng, device=context.device)
        return self.unscaled(flow(self.velocity, noise, self.steps, context).view(-1, self.length, self.dimensions))


def _waves(time: Tensor) -> Tensor:
    """Sines and cosines from half a period over 0 … 1 to 64 times as fast."""
    rates = torch.logspace(0, math.log10(64), _TIME_SIZE // 2, device=time.device) * math.pi
    angles = time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
