"""All rows, built or not yet. An experiment is imported when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ornstein.core.errors import OrnsteinError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ornstein.claims.outcome import Outcome


@dataclass(frozen=True)
class Claim:
    """id and statement; `experiment` names its function, "module:function", empty where there is none yet; minutes it takes here."""

    id: str
    statement: str
    experiment: str = ""
    minutes: float = 0.0

    def load(self) -> Callable[[Path, bool], Outcome]:
        """The experiment: `(folder for what it keeps, quick) → Outcome`.

        Raises:
            OrnsteinError: it is not built yet.
        """
        if not self.experiment:
            built = ", ".join(claim.id for claim in LEDGER if claim.experiment)
            raise OrnsteinError(f"claim {self.id} has no experiment yet; built: {built}")
        module, function = self.experiment.split(":")
        found: Callable[[Path, bool], Outcome] = getattr(import_module(f"ornstein.claims.{module}"), function)
        return found


LEDGER: tuple[Claim, ...] = (
    Claim(
        "D1",
        "q(x_t | x_{t−1}) = N(√(1−β_t) x_{t−1}, β_t I) with β from 1e-4 to 0.02: after 1,000 steps only noise is left",
        "forward_process:only_noise_is_left",
        0.5,
    ),
    Claim(
        "D2",
        "a model may predict ε, x_0, v or the score: they are equivalent, and ε trains best",
        "predictions:equivalent_and_eps_best",
        45,
    ),
    Claim(
        "D3",
        "training minimises E‖ε − ε_θ(√α̅_t x_0 + √(1−α̅_t) ε, t)‖² with t uniform, and can reach its least value",
        "objective:trained_loss_against_optimal",
        10,
    ),
    Claim("D4", "x_t is reached in one jump instead of t steps", "forward_process:chain_against_jump", 0.5),
    Claim(
        "D5",
        "DDPM needs about 1,000 steps; DDIM skips steps, 10 to 100 times faster at nearly equal quality, with the same marginals",
        "fewer_steps:fewer_steps",
        95,
    ),
    Claim(
        "D6",
        "latent diffusion is several times faster than pixels at the same quality, with slight artefacts",
        "latent_or_pixels:latent_or_pixels",
        50,
    ),
    Claim(
        "D7",
        "guidance trades diversity for alignment; scales of 7 to 15; drop the condition in 10 to 20 % of training",
        "guidance:guidance_and_dropping",
        60,
    ),
    Claim(
        "D8",
        "diffusion, GAN and VAE differ in quality, stability, mode coverage, speed and likelihood",
        "contest:diffusion_gan_vae",
        90,
    ),
    Claim(
        "D9",
        "refinement over many steps is why diffusion beats GANs; distillation mends its slowness",
        "refinement:refinement_and_distillation",
        130,
    ),
    Claim(
        "V1",
        "end-to-end policies beat perception → state estimation → planning → control",
        "pipeline_or_policy:pipeline_or_policy",
        200,
    ),
    Claim(
        "V2",
        "RT-1: trained on robot data, EfficientNet with FiLM from a sentence encoder",
        "generalisation:small_rt1",
        25,
    ),
    Claim(
        "V3",
        "RT-2: a vision-language model co-fine-tuned with actions as tokens of its vocabulary",
        "speaking_policy:small_rt2",
        60,
    ),
    Claim(
        "V4",
        "actions as 7 tokens of 256 bins with cross-entropy are stabler than regression and multimodal",
        "action_heads:heads_compared",
        150,
    ),
    Claim(
        "V5",
        "FiLM(h) = γ ⊙ h + β from language at several layers conditions vision well",
        "conditioning:conditioning",
        120,
    ),
    Claim(
        "V6",
        "RT-2's recipe: start from a vision-language model, add action tokens, fine-tune, keep both abilities",
        "co_fine_tuning:recipe_of_four_steps",
        240,
    ),
    Claim(
        "V7",
        "web pre-training brings emergent abilities: symbols, reasoning, arithmetic, chain of thought",
        "emergence:emergent_abilities",
        240,
    ),
    Claim(
        "V8",
        "co-fine-tuning beats a frozen model with an action head; mixed-in data prevents forgetting",
        "co_fine_tuning:what_mixing_is_worth",
        480,
    ),
    Claim("V9", "limits: sample efficiency, precision, long horizon, safety, visual gap, fixed body, compute"),
)


def find_claims(ids: Sequence[str]) -> list[Claim]:
    """The claims with these ids, in their order, whatever the case.

    Raises:
        UnknownNameError: there is no such claim.
    """
    known = {claim.id: claim for claim in LEDGER}
    for name in ids:
        if name.upper() not in known:
            raise unknown_name("claim", name, known)
    return [known[name] for name in dict.fromkeys(name.upper() for name in ids)]
