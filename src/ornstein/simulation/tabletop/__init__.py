"""The tabletop world: eight skills, two arms, any of OpenMoji's drawings on its blocks. No torch.

Importing it makes the world known to gymnasium: `gymnasium.make("ornstein/Tabletop-v0")`.
"""

# In reading order.
# ruff: noqa: I001, RUF022
import gymnasium

from ornstein.simulation.tabletop.scene import SKILLS, Block, Bowl, Cabinet, Mat, Scene, Task
from ornstein.simulation.tabletop.look import Look
from ornstein.simulation.tabletop.splits import held_out_pairs, leaks, words
from ornstein.simulation.tabletop.sampling import Variation, sample_scene
from ornstein.simulation.tabletop.world import CONTROL_HZ, FILM_HZ, Moment, TabletopWorld
from ornstein.simulation.tabletop.environment import TabletopEnv, contract
from ornstein.simulation.tabletop.replay import Replay
from ornstein.simulation.tabletop.suites import SUITES, Suite, suite
from ornstein.simulation.tabletop.expert import Expert, Style, sample_style
from ornstein.simulation.tabletop.episode import Episode, generate_episode

__all__ = [
    "SKILLS",
    "Block",
    "Bowl",
    "Cabinet",
    "Mat",
    "Scene",
    "Task",
    "Look",
    "held_out_pairs",
    "leaks",
    "words",
    "Variation",
    "sample_scene",
    "CONTROL_HZ",
    "FILM_HZ",
    "Moment",
    "TabletopWorld",
    "TabletopEnv",
    "contract",
    "Replay",
    "SUITES",
    "Suite",
    "suite",
    "Expert",
    "Style",
    "sample_style",
    "Episode",
    "generate_episode",
]

gymnasium.register(id="ornstein/Tabletop-v0", entry_point="ornstein.simulation.tabletop.environment:TabletopEnv")
