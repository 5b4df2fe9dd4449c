"""The tabletop world: scenes, physics, pictures, a gymnasium environment and a scripted expert. No torch."""

# In reading order.
# ruff: noqa: I001, RUF022
from ornstein.simulation.objects import HELD_OUT_PHRASINGS, SEEN_OBJECTS, TRAIN_PHRASINGS
from ornstein.simulation.scene import PlacedBlock, Scene, sample_scene
from ornstein.simulation.world import CONTROL_HZ, FILM_HZ, TabletopWorld
from ornstein.simulation.environment import TabletopEnv, contract
from ornstein.simulation.replay import Replay
from ornstein.simulation.expert import PickExpert
from ornstein.simulation.episode import Episode, generate_episode

__all__ = [
    "SEEN_OBJECTS",
    "TRAIN_PHRASINGS",
    "HELD_OUT_PHRASINGS",
    "PlacedBlock",
    "Scene",
    "sample_scene",
    "CONTROL_HZ",
    "FILM_HZ",
    "TabletopWorld",
    "TabletopEnv",
    "contract",
    "Replay",
    "PickExpert",
    "Episode",
    "generate_episode",
]
