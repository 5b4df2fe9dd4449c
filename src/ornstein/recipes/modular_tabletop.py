"""Recipe `modular-tabletop`: the eyes of the classical pipeline, which finds and names what stands on the tabletop.

Everything else of that pipeline is written down, not learnt: camera geometry, grammar, motion (`ornstein.policies.modular`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.checks import require_seeds, require_shares
from ornstein.networks.centre_net import CentreNetConfig
from ornstein.training import Optimization

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ornstein.data.tabletop_views import TabletopViews, Views
    from ornstein.training import Batch, TrainResult

CARD = """Finds and names blocks, mats, bowl and drawer in the front camera's picture. Trained on rendered views of the tabletop's seen objects, numbers,
colours and symbols, with their places as the simulation knows them; no demonstration of any action. The blocks show OpenMoji drawings: these weights
are CC BY-SA 4.0 by OpenMoji (https://openmoji.org)."""
_PREVIEW_SEED = 1


@dataclass(frozen=True)
class ModularTabletopRecipe:
    """Every hyper-parameter of the shipped eyes.

    data_seed: of the views. varied: share of the views with other lights and tables. color_jitter: largest relative change of
    brightness and contrast.
    """

    network: CentreNetConfig = field(default_factory=CentreNetConfig)
    optimization: Optimization = field(
        default_factory=lambda: Optimization(
            steps=2000,
            batch_size=24,
            learning_rate=2e-3,
            warmup_steps=100,
            weight_decay=0.01,
            ema_decay=0.998,
            checkpoint_every=200,
            preview_every=500,
        )
    )
    data_seed: int = 0
    varied: float = 0.3
    color_jitter: float = 0.1

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_shares(varied=self.varied, color_jitter=self.color_jitter)

    def objective(self) -> tuple[nn.Module, Any]:
        """A fresh network, and its loss on the arrays of `Views`."""
        from ornstein.networks.centre_net import CentreNet, CentreTargets, centre_loss

        def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            pictures = _jittered(batch["pictures"], self.color_jitter, rng)
            truth = CentreTargets(*(batch[name] for name in CentreTargets._fields))
            return centre_loss(model(pictures), truth)

        return CentreNet(self.network), loss_fn


def train_modular_tabletop(recipe: ModularTabletopRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Train and export to `out/model`; what it finds in fresh views lands in `out/previews` as training goes on."""
    from ornstein.data.tabletop_views import KINDS, TabletopViews, thing_names
    from ornstein.simulation.tabletop import Variation, contract
    from ornstein.training import RunFolder, initialise, train

    RunFolder(out).check(resume=resume)
    size = recipe.network.image_size
    plain = TabletopViews(size, seed=recipe.data_seed)
    other = TabletopViews(size, seed=recipe.data_seed, variation=Variation(lights=True, table=True, sizes=True))
    fresh = TabletopViews(size, seed=recipe.data_seed + _PREVIEW_SEED)

    def batch_of(indices: np.ndarray) -> Batch:
        varied = np.array([np.random.default_rng([recipe.data_seed, int(i), 19]).random() < recipe.varied for i in indices])
        parts = [views.at(chosen) for views, chosen in ((plain, indices[~varied]), (other, indices[varied])) if len(chosen)]
        return _as_batch(parts)

    try:
        return train(
            initialise(lambda: recipe.objective()[0], recipe.optimization.seed),
            recipe.objective()[1],
            batch_of,
            recipe.optimization,
            out,
            recipe="modular-tabletop",
            kind="modular",
            config={
                "network": asdict(recipe.network),
                "kinds": list(KINDS),
                "names": list(thing_names()),
                "camera": plain.camera(),
            },
            hyper_parameters=asdict(recipe),
            contract=contract({"front": size}),
            preview=lambda model, step, path: _preview(model, fresh, path),
            card=CARD,
            resume=resume,
        )
    finally:
        for views in (plain, other, fresh):
            views.close()


def _as_batch(parts: list[Views]) -> Batch:
    import torch

    names = ("pictures", "present", "kind", "name", "place", "heading")
    return {name: torch.from_numpy(np.concatenate([getattr(part, name) for part in parts])) for name in names}


def _jittered(pictures: Tensor, amount: float, rng: torch.Generator) -> Tensor:
    """Brightness and contrast changed a little, picture by picture; uint8 as before."""
    import torch

    if amount <= 0:
        return pictures
    draw = torch.rand((2, len(pictures), 1, 1, 1), generator=rng, device=pictures.device) * 2 - 1
    floats = (pictures.float() - 127.5) * (1 + amount * draw[0]) + 127.5 * (1 + amount * draw[1])
    return floats.clamp(0, 255).round().to(torch.uint8)


def _preview(model: nn.Module, views: TabletopViews, path: Path) -> None:
    """Sixteen fresh views with a dot where a centre was found: green where the name is right, red where not."""
    import copy

    import torch

    from ornstein.data.pictures import contact_sheet
    from ornstein.policies.sight import found_things

    seen = views.at(range(16))
    with torch.inference_mode():
        said = copy.deepcopy(model).eval()(torch.from_numpy(seen.pictures))
    marked = seen.pictures.copy()
    side = marked.shape[1]
    for k in range(len(marked)):
        for thing in found_things(said, k):
            near = np.hypot(*(seen.place[k] - thing.place).T) + (~seen.present[k]) * 9
            truth = int(near.argmin())
            right = (
                near[truth] < 0.1
                and seen.kind[k, truth] == thing.kind
                and (thing.kind > 1 or seen.name[k, truth] == thing.names.argmax())
            )
            column, row = ((thing.place + 1) / 2 * side).astype(int).clip(2, side - 3)
            marked[k, row - 2 : row + 3, column - 2 : column + 3] = (0, 200, 0) if right else (230, 0, 0)
    contact_sheet(marked.repeat(2, 1).repeat(2, 2), columns=4).save(path)
