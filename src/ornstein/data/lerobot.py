"""LeRobotDataset v3 folders: what is public of them.

spec = DatasetSpec(contract)
with LeRobotWriter(Path("pick-data"), spec) as writer:
    writer.add(RobotEpisode("pick up the banana", {"front": pictures}, {"observation.state": states, "action": actions}))
    writer.finish()
for episode in LeRobotDataset(Path("pick-data")):
    episode.frames["front"], episode.actions, episode.instruction
"""

# In reading order.
# ruff: noqa: I001, RUF022
from ornstein.data.lerobot_format import Feature
from ornstein.data.lerobot_video import VideoEncoding
from ornstein.data.lerobot_episode import DatasetSpec, RobotEpisode
from ornstein.data.lerobot_writer import LeRobotWriter
from ornstein.data.lerobot_reader import EpisodeRow, LeRobotDataset
from ornstein.data.lerobot_checks import inspect_dataset, validate_dataset
from ornstein.data.lerobot_convert import Converted, convert_dataset

__all__ = [
    "RobotEpisode",
    "DatasetSpec",
    "Feature",
    "VideoEncoding",
    "LeRobotWriter",
    "LeRobotDataset",
    "EpisodeRow",
    "inspect_dataset",
    "validate_dataset",
    "Converted",
    "convert_dataset",
]
