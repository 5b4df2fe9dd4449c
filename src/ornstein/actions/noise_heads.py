"""Action heads that turn noise into actions: diffusion and flow matching, on the core that draws pictures."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.actions.heads import ActionHead
from ornstein.core.errors import DataError
from ornstein.diffusion import DDIM, NoiseSchedule, ddpm_loss, flow, flow_log_likelihood, flow_matching_loss
from ornstein.networks.dit import time_embedding

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

    from ornstein.core.contract import EmbodimentContract

#: Times come as 0 … 1, and the embedding is made for steps of about a thousand.
_TIME_SIZE, _TIME_SCALE = 64, 1000.0


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
        condition = self.condition_in(
            torch.cat([context, time_embedding(_TIME_SCALE * time, _TIME_SIZE).to(context.dtype)], dim=-1)
        )
        h: Tensor = self.chunk_in(chunk.to(context.dtype))
        for norm, modulation, layer in zip(self.norms, self.modulations, self.layers, strict=True):
            scale, shift, gate = modulation(condition).chunk(3, dim=-1)
            h = h + gate * layer((1 + scale) * norm(h) + shift)
        found: Tensor = self.out(functional.silu(h))
        return found


class NoiseHead(ActionHead):
    """What both have in common: a network over the flat, scaled chunk, and noise to begin with."""

    def __init__(self, context_size: int, length: int, contract: EmbodimentContract, *, width: int, depth: int) -> None:
        super().__init__(context_size, length, contract)
        self.net = ChunkDenoiser(context_size, length * self.dimensions, width=width, depth=depth)

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """The objective of the scaled chunk."""
        return self.objective(self.scaled(self.checked(context, actions)).flatten(1), context, rng)

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """From noise in a few steps; there is no likeliest chunk to be had."""
        noise = torch.randn((len(context), self.length * self.dimensions), generator=rng, device=context.device)
        return self.unscaled(self.from_noise(noise, context).view(-1, self.length, self.dimensions))

    @abstractmethod
    def objective(self, scaled: Float[Tensor, "batch numbers"], context: Tensor, rng: torch.Generator) -> Tensor:
        """The scalar to minimise."""

    @abstractmethod
    def from_noise(self, noise: Float[Tensor, "batch numbers"], context: Tensor) -> Float[Tensor, "batch numbers"]:
        """The scaled chunk that this noise becomes."""


class DiffusionHead(NoiseHead):
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
        super().__init__(context_size, length, contract, width=width, depth=depth)
        self.schedule, self.prediction = NoiseSchedule.cosine(num_steps=train_steps), prediction
        self.sampler = DDIM(self.schedule, steps, prediction=prediction, clip=1.0)

    def denoise(self, x_t: Tensor, t: Shaped[Tensor, " batch"], context: Tensor) -> Tensor:
        """A prediction, for samplers."""
        found: Tensor = self.net(x_t, t.float() / self.schedule.num_steps, context)
        return found.to(x_t.dtype)

    def objective(self, scaled: Tensor, context: Tensor, rng: torch.Generator) -> Tensor:
        """The DDPM objective."""
        return ddpm_loss(self.denoise, scaled, context, self.schedule, self.prediction, rng, times="stratified").loss

    def from_noise(self, noise: Tensor, context: Tensor) -> Tensor:
        """DDIM."""
        return self.sampler.sample(self.denoise, noise, context)

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


class FlowHead(NoiseHead):
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
        super().__init__(context_size, length, contract, width=width, depth=depth)
        if steps < 1 or early < 0 or not math.isfinite(early):
            raise DataError(f"a flow takes at least one step and early ≥ 0, got {steps} and {early}")
        self.steps, self.early = steps, early

    def velocity(self, x: Tensor, tau: Tensor, context: Tensor) -> Tensor:
        """dx/dτ."""
        found: Tensor = self.net(x, tau, context)
        return found.float()

    def objective(self, scaled: Tensor, context: Tensor, rng: torch.Generator) -> Tensor:
        """The flow-matching objective."""
        return flow_matching_loss(self.velocity, scaled, context, rng, early=self.early)

    def from_noise(self, noise: Tensor, context: Tensor) -> Tensor:
        """Euler's method."""
        return flow(self.velocity, noise, self.steps, context)
