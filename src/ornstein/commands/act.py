"""`ornstein act`: what a robot's vision-language-action model would do next about a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ornstein.commands.parsing import require_png
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract


def act(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    instruction: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INSTRUCTION")],
    /,
    state: tuple[float, ...] | None = None,
    think: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    mark: Path | None = None,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """One decision of an RT-2: where it would take what, its seven tokens, the action that they mean, and how unsure it is.

    Example: ornstein act runs/rt2-tabletop table.png "pick up the lion" --mark where.png

    Args:
        checkpoint: A folder of an RT-2; `ornstein ask` asks the same model.
        image: What its front camera sees: any picture file, of which the middle square is looked at.
        instruction: What it should do.
        state: The arm's state in the order and the units of its contract; where an episode begins unless given.
        think: Let it say first what the instruction means in plain words, and do that.
        mark: Also write the picture as it was looked at, with what is moved marked red and where to blue: a .png file.
        json_output: Print JSON instead of text.
    """
    import json

    import ornstein
    from ornstein.commands.looking import marked, require_picture, square_of

    if mark is not None:
        require_png(mark, "--mark")
    if not instruction.strip():
        raise DataError("say what to do: the instruction is empty")
    require_picture(image)
    policy = ornstein.load(checkpoint, expect="rt2")
    policy.thinks = policy.thinks or think
    (camera,) = policy.contract.cameras
    pixels = square_of(image, camera.height)
    felt = _felt(policy.contract, state)
    action = policy.act({"pixels": {camera.name: pixels}, "agent_pos": felt, "instruction": instruction})
    assert policy.said is not None
    places = [] if policy.said.pointers is None else ((policy.said.pointers + 1) / 2 * camera.height).tolist()
    if mark is not None:
        if not places:
            raise DataError(f"{checkpoint} does not say places before it acts: there is nothing to mark")
        marked(pixels, places).save(mark)
    said = policy.model.tokenizer.decode(policy.tokens)
    named = {channel.name: float(number) for channel, number in zip(policy.contract.action, action, strict=True)}
    if json_output:
        print(json.dumps({"plan": policy.plan, "said": said, "places": places, "action": named, "doubt": policy.doubt}))
        return 0
    if policy.plan:
        print(f"plan {policy.plan}")
    for what, (column, row) in zip(("takes what is at", "to"), places, strict=False):
        print(f"{what} column {column:.0f}, row {row:.0f} of {camera.height}")
    print(f"says {said}")
    for channel in policy.contract.action:
        print(f"  {channel.name:<8}{named[channel.name]:+.4f} {channel.unit}")
    print(f"doubt {policy.doubt:.2f} nats a token")
    return 0


def _felt(body: EmbodimentContract, state: tuple[float, ...] | None) -> NDArray[np.float32]:
    """The arm's state as given, or where episodes begin."""
    import numpy as np

    from ornstein.evaluation.trials import arm_of
    from ornstein.simulation.tabletop import TabletopEnv

    if state is not None:
        names = [channel.name for channel in body.state]
        if len(state) != len(names):
            raise DataError(f"the arm's state has {len(names)} numbers ({', '.join(names)}), got {len(state)}")
        return np.array(state, np.float32)
    env = TabletopEnv(cameras={}, arm=arm_of(body))
    try:
        return env.reset(seed=0)[0]["agent_pos"]
    finally:
        env.close()
