"""Recipe `diffusion-policy-tabletop`: chunks of actions out of noise (Chi et al. 2023, "Diffusion Policy"), or by any other head.
`ornstein train diffusion-policy-tabletop [--action-head flow]`.

It looks through the eyes of a finished RT-1, which do not change, so that arms can be compared on the same sight, data and budget; and it trains
on what those eyes saw in each frame, computed once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ornstein.actions import HeadName
from ornstein.policies import RT1Config
from ornstein.recipes.recorded import RecordedDemonstrations
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_practice import learn_to_act, loaded
from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe, arm_optimization
from ornstein.training import Optimization

if TYPE_CHECKING:
    from ornstein.policies import RT1
    from ornstein.training import TrainResult


@dataclass(frozen=True)
class DiffusionPolicyTabletopRecipe(RecordedDemonstrations):
    """Every hyper-parameter of the policy.

    eyes: a shipped RT-1, or the folder of one, that reads and sees. All else as in `RT1TabletopRecipe`; the arm learns from demonstrations alone.
    """

    eyes: str = "rt1-tabletop"
    action_head: HeadName = "diffusion"
    num_bins: int = 256
    chunk: int = 8
    execute: int = 4
    ensemble_decay: float | None = None
    optimization: Optimization = field(default_factory=arm_optimization)
    smoothing_bins: float = 1.5
    word_dropout: float = 0.2
    place_noise: float = 0.01
    preview_episodes: int = 40

    def __post_init__(self) -> None:
        plan_of(self, RT1Config())  # says what is wrong with it


def train_diffusion_policy_tabletop(recipe: DiffusionPolicyTabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Record if the data are missing, learn to act, export to `out/model`; the success rate on a few validation scenes lands in `previews`.

    Raises:
        UnknownNameError, CheckpointError: the eyes are no RT-1. ContractError: they look at other pictures than the data have.
    """
    from ornstein.core.errors import ContractError
    from ornstein.hub import find_checkpoint
    from ornstein.training import RunFolder, initialise, main_process_first

    RunFolder(out).check(resume=resume)
    eyes, fingerprint = loaded(recipe.eyes), find_checkpoint(recipe.eyes).fingerprint
    plan = plan_of(recipe, eyes.config)
    with main_process_first():
        examples = RT1Examples.prepare(plan, out)
    size = examples.contract.cameras[0].height
    if size != eyes.config.image_size:
        raise ContractError(f"{recipe.eyes} looks at pictures of {eyes.config.image_size} px, the data have {size}")
    return learn_to_act(
        plan,
        examples,
        recipe.cache or out / "cache",
        recipe.optimization,
        initialise(partial(_behind, eyes, examples), recipe.optimization.seed),
        None,
        out,
        resume=resume,
        recipe_name="diffusion-policy-tabletop",
        hyper_parameters={**asdict(recipe), "eyes_fingerprint": fingerprint},
        card=f"It looks through the eyes of `{recipe.eyes}` ({fingerprint}), which were not trained further.",
    )


def plan_of(recipe: DiffusionPolicyTabletopRecipe, network: RT1Config) -> RT1TabletopRecipe:
    """The stage of `rt1-tabletop` that this is, with a network like that."""
    settings = {one.name: getattr(recipe, one.name) for one in fields(recipe) if one.name != "eyes"}
    return RT1TabletopRecipe(**settings, network=network, views=0, sentences=0, scenes=())


def _behind(eyes: RT1, examples: RT1Examples) -> RT1:
    """A fresh arm behind them."""
    network = examples.network(eyes.config)
    for part in network.EYES:
        getattr(network, part).load_state_dict(getattr(eyes, part).state_dict())
    return network
