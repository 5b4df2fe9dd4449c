"""Recipe `diffusion-policy-tabletop-fast`: a student that makes a chunk of actions out of noise in one step.
`ornstein train diffusion-policy-tabletop-fast`.

Sampling without fresh noise on the way is a map from noise to chunks; the student's network learns that map as it is (Luhman & Luhman 2021,
"Knowledge Distillation in Iterative Generative Models"). In a few dozen numbers a network is large enough to hold it.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.core.checks import require_at_least
from ornstein.core.errors import CheckpointError
from ornstein.recipes.diffusion_policy_tabletop import DiffusionPolicyTabletopRecipe, plan_of
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_practice import described, loaded, practice_of
from ornstein.training import Optimization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ornstein.actions.noise_heads import NoiseHead
    from ornstein.core.contract import EmbodimentContract
    from ornstein.policies import RT1
    from ornstein.training import Batch, TrainResult

NAME, TEACHER_RECIPE = "diffusion-policy-tabletop-fast", "diffusion-policy-tabletop"
#: What the student sees as its teacher did.
_SHARED = (
    "action_head",
    "chunk",
    "execute",
    "ensemble_decay",
    "episodes",
    "data_seed",
    "disturbance",
    "vary",
    "plain",
    "weights",
    "word_dropout",
    "place_noise",
)


def _optimization() -> Optimization:
    return Optimization(
        steps=4000,
        batch_size=512,
        learning_rate=1e-3,
        warmup_steps=100,
        weight_decay=0.0,
        ema_decay=0.998,
        checkpoint_every=500,
        preview_every=2000,
    )


@dataclass(frozen=True)
class FastDiffusionPolicyTabletopRecipe:
    """Every hyper-parameter of the student.

    teacher: the run's folder of a policy whose head is a diffusion or a flow; the student starts as it, and only its head learns.
    steps: in which the student makes a chunk. data, also, cache: the demonstrations that the teacher saw; those of its run unless given, recorded
    again if they are missing.
    preview_episodes: validation scenes that are tried at every preview.
    """

    teacher: str = f"runs/{TEACHER_RECIPE}"
    steps: int = 1
    optimization: Optimization = field(default_factory=_optimization)
    data: Path | None = None
    also: tuple[Path, ...] = ()
    cache: Path | None = None
    preview_episodes: int = 40

    def __post_init__(self) -> None:
        require_at_least(1, steps=self.steps, preview_episodes=self.preview_episodes)


def train_diffusion_policy_tabletop_fast(
    recipe: FastDiffusionPolicyTabletopRecipe, out: Path, *, resume: bool = False
) -> TrainResult:
    """Distil and export to `out/model`; the success rate on a few validation scenes lands in `previews`.

    Raises:
        UnknownNameError, CheckpointError: the teacher is none that can be distilled.
    """
    from ornstein.hub import find_checkpoint
    from ornstein.training import RunFolder, initialise, main_process_first, train

    RunFolder(out).check(resume=resume)
    teacher, checkpoint = loaded(recipe.teacher), find_checkpoint(recipe.teacher)
    recipe = replace(
        recipe,
        data=recipe.data or _of_its_run(recipe.teacher, "data"),
        cache=recipe.cache or _of_its_run(recipe.teacher, "cache"),
    )
    shown = _shown(recipe, checkpoint.provenance.get("hyper_parameters", {}))
    plan = plan_of(shown, teacher.config)
    with main_process_first():
        examples = RT1Examples.prepare(plan, out)
        practice = practice_of(plan, examples, teacher, examples.seen(teacher, recipe.cache or out / "cache"), None)
    head = {**checkpoint.config["head"], "steps": recipe.steps}
    saw = checkpoint.provenance["hyper_parameters"].get("data_fingerprint")
    if saw != examples.data.fingerprint:
        print(
            f"look at the data: {recipe.teacher} learned from {saw}, and these are {examples.data.fingerprint}; --data and --also name the same",
            file=sys.stderr,
        )
    student = initialise(lambda: _student(teacher, head, examples.contract), recipe.optimization.seed)
    return train(
        student,
        Distilling(teacher, plan.place_noise),
        practice.batch,
        recipe.optimization,
        out,
        resume=resume,
        **described(
            plan,
            examples._replace(head=head),
            recipe_name=NAME,
            hyper_parameters={**asdict(recipe), "teacher_fingerprint": checkpoint.fingerprint},
            card=f"A student of `{recipe.teacher}` ({checkpoint.fingerprint}) that decides in {recipe.steps} step{'s' * (recipe.steps > 1)}.",
        ),
    )


def _of_its_run(teacher: str, name: str) -> Path | None:
    """What the teacher's run has left, if it has."""
    folder = Path(teacher).expanduser() / name
    return folder if folder.is_dir() else None


def _shown(recipe: FastDiffusionPolicyTabletopRecipe, theirs: dict[str, Any]) -> DiffusionPolicyTabletopRecipe:
    """The teacher's recipe, as far as the student shares it."""
    if not set(_SHARED) <= set(theirs) or theirs["action_head"] not in ("diffusion", "flow"):
        said = theirs.get("action_head", "another recipe")
        raise CheckpointError(
            f"{recipe.teacher} cannot be distilled: that takes a policy of the recipe {TEACHER_RECIPE} with a diffusion or a flow as its head, this"
            f" is of {said}"
        )
    shared = {name: theirs[name] for name in _SHARED}
    return DiffusionPolicyTabletopRecipe(
        **{**shared, "vary": tuple(shared["vary"]), "weights": tuple(shared["weights"])},
        eyes=recipe.teacher,
        data=recipe.data,
        also=recipe.also,
        cache=recipe.cache,
        preview_episodes=recipe.preview_episodes,
        optimization=recipe.optimization,
    )


def _student(teacher: RT1, head: dict[str, Any], contract: EmbodimentContract) -> RT1:
    """The teacher with that head, whose network alone learns."""
    from ornstein.policies import RT1

    student = RT1(teacher.config, head, contract)
    student.load_state_dict(teacher.state_dict())
    student.requires_grad_(requires_grad=False)
    student.head.requires_grad_()
    return student


class Distilling:
    """The student's chunk against the teacher's from the same noise: mean squared error of the scaled numbers, after what the last frame showed."""

    def __init__(self, teacher: RT1, place_noise: float) -> None:
        self._teacher, self._place_noise = copy.deepcopy(teacher).eval().requires_grad_(requires_grad=False), place_noise

    def __call__(self, model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from ornstein.policies.rt1_losses import with_place_noise

        seen, teacher = batch["seen"], self._teacher.to(batch["seen"].device)
        noisy = with_place_noise(seen, self._place_noise, rng)
        head: NoiseHead = teacher.head  # type: ignore[assignment]
        with torch.no_grad():
            context = teacher.decide(noisy, batch["words"], batch["state"])[:, -1]
            start = torch.randn((len(context), head.length * head.dimensions), generator=rng, device=seen.device)
            wanted = head.from_noise(start, context)
        said = model.head.from_noise(start, context)  # type: ignore[union-attr, operator]
        loss = (said - wanted).square().mean()
        return loss, {"off": loss.detach().sqrt()}
