"""`ornstein data …`: make, look at and check robot data sets, and folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ornstein.commands.parsing import call, require_png
from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from ornstein.data.lerobot import LeRobotDataset

_SIDE, _SHEET = 128, 64
ACTIONS = {
    "generate": "let the scripted expert record episodes as a LeRobotDataset v3 folder",
    "inspect": "what a data set holds: episodes, frames, tasks, features, contract",
    "validate": "check every file, count and number of a data set",
    "statistics": "mean, spread, range and quantiles of every number, and what looks wrong with them",
    "convert": "a LeRobotDataset v2.0, v2.1 or v3.0 as v3.0, without its bad episodes on request",
    "preview-questions": "pictures of the vision-language data, what is asked about them and the answers",
    "inspect-pictures": "which pictures and captions of a folder a text-to-image model can be trained on",
}


def data(arguments: list[str]) -> int:
    """Dispatch to the sub-command named first."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("\n".join(["usage: ornstein data COMMAND …", "", *(f"  {name:<18}{text}" for name, text in ACTIONS.items())]))
        return 0
    name, rest = arguments[0], arguments[1:]
    match name:
        case "generate":
            return call(_generate, rest, "data generate")
        case "inspect":
            return call(_inspect, rest, "data inspect")
        case "validate":
            return call(_validate, rest, "data validate")
        case "statistics":
            return call(_statistics, rest, "data statistics")
        case "convert":
            return call(_convert, rest, "data convert")
        case "preview-questions":
            return call(_preview_questions, rest, "data preview-questions")
        case "inspect-pictures":
            return call(_inspect_pictures, rest, "data inspect-pictures")
        case _:
            raise unknown_name("data command", name, ACTIONS)


def _generate(
    suite: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUITE")] = "all",
    /,
    out: Path = Path("tabletop-data"),
    episodes: int = 50,
    seed: int = 0,
    noise: float = 0.05,
    workers: int = 2,
    ray: str | None = None,
    arm: Literal["arm7", "arm6"] = "arm7",
    front: int = 128,
    wrist: int = 64,
    vary: tuple[Literal["lights", "table", "camera", "sizes"], ...] = (),
    plain: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    images: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Record the scripted expert at work on the tabletop, as a LeRobotDataset v3 folder.

    Args:
        suite: Which scenes: a skill (pick, move-near, push, place-in-bowl, place-on-mat, stack, open-drawer, close-drawer), all of them
            mixed (all), or chains of them (chains, long-chains).
        out: The new data set's folder; an existing one is refused.
        episodes: How many successful episodes; failed ones are left out and counted.
        seed: Of the first scene.
        noise: Chance that a disturbance of three steps begins at a step, so that the data show recoveries; labels stay clean.
        workers: Processes that simulate side by side; the data do not depend on it.
        ray: Address of a Ray cluster whose processes simulate instead: HOST:PORT, auto (this machine's), or local (one of its own). All
            machines must see --out under the same path.
        arm: The body: seven joints, or six in a longer arm with a wider gripper.
        front: Side of the front camera's pictures in pixels; 0 records none.
        wrist: Side of the wrist camera's pictures in pixels; 0 records none.
        vary: Aspects of the look that are drawn at random for each scene.
        plain: All demonstrations in one manner, straight and fast, instead of one drawn for each (height, speed, curve, grip).
        images: Keep every picture as a PNG in the tables, exact and several times as large, instead of H.264 videos.
    """
    from ornstein.data.demonstrations import record_demonstrations

    cameras = {name: size for name, size in (("front", front), ("wrist", wrist)) if size}
    made = record_demonstrations(
        out,
        suite,
        episodes=episodes,
        seed=seed,
        noise=noise,
        workers=workers,
        ray=ray,
        cameras=cameras,
        arm=arm,
        vary=vary,
        plain=plain,
        images=images,
    )
    failed = f"; {len(made.failed_seeds)} failed and were left out" if made.failed_seeds else ""
    print(f"{made.episodes} episodes, {made.frames} frames{failed}")
    print(out)
    return 0


def _inspect(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
    sheet: Path | None = None,
) -> int:
    """Show what a data set holds.

    Args:
        folder: A LeRobotDataset v3 folder.
        json_output: Print JSON instead of a table.
        sheet: Also write a sheet of first frames, up to 64 episodes spread over all: a .png file.
    """
    import json

    from ornstein.data.lerobot import LeRobotDataset, inspect_dataset

    if sheet is not None:
        require_png(sheet, "--sheet")
    summary = inspect_dataset(folder)
    if sheet is not None:
        _first_frames(LeRobotDataset(folder)).save(sheet)
    if json_output:
        print(json.dumps(summary))
        return 0
    for name, value in summary.items():
        print(f"{name:<14}{value}")
    return 0


def _first_frames(data: LeRobotDataset) -> Image:
    """One row of pictures a camera for each stretch of episodes, all at the size of the largest."""
    import numpy as np
    from PIL import Image

    from ornstein.data.pictures import contact_sheet, spread

    if not data.cameras:
        raise DataError(f"{data.folder} has no cameras: there is nothing to put on a sheet")
    side = max(data.features[key].shape[0] for key in data.cameras.values())
    shown = []
    for k in spread(len(data.episodes), _SHEET):
        for camera in data.cameras:
            first = Image.fromarray(data.pictures(int(k), camera, 0, 1)[0])
            shown.append(np.asarray(first.resize((side, side), Image.Resampling.NEAREST)))
    return contact_sheet(np.stack(shown), columns=8)


def _statistics(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Show mean, spread, range and quantiles of every number of a data set, and what looks wrong with them.

    Args:
        folder: A LeRobotDataset v3 folder.
        json_output: Print JSON instead of a table.
    """
    import json

    from ornstein.data.lerobot_summary import statistics_rows, suspicions

    rows = statistics_rows(folder)
    doubts = suspicions(rows)
    if json_output:
        print(json.dumps({"rows": [vars(row) for row in rows], "doubts": doubts}))
        return 0
    wide = max(len(row.name) for row in rows)
    print(f"{'':<{wide}}  " + "".join(f"{title:>11}" for title in ("mean", "std", "min", "1 %", "99 %", "max")))
    for row in rows:
        numbers = (row.mean, row.std, row.minimum, row.q01, row.q99, row.maximum)
        print(f"{row.name:<{wide}}  " + "".join(f"{number:>11.4g}" for number in numbers))
    print("\n".join(["", *(f"look at this: {doubt}" for doubt in doubts)]) if doubts else "\nnothing looks wrong")
    return 0


def _validate(folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")], /) -> int:
    """Check every file, count and number of a data set; exit code 0 only if all of it holds.

    Args:
        folder: A LeRobotDataset v3 folder.
    """
    from ornstein.data.lerobot import validate_dataset

    validate_dataset(folder)
    print(f"{folder} is whole")
    return 0


def _convert(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    out: Path,
    skip_bad: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Write a LeRobotDataset v2.0, v2.1 or v3.0 as v3.0: rows as they are, videos without encoding again, statistics anew.

    Every number is read and every picture decoded. What is stopped goes on with the same command.

    Args:
        folder: The data set; it is not changed.
        out: The new folder; an existing one is refused.
        skip_bad: Leave out episodes that are damaged, and say which and why.
    """
    from ornstein.data.lerobot import convert_dataset

    made = convert_dataset(folder, out, skip_bad=skip_bad)
    for number, reason in made.left_out:
        print(f"left out episode {number}: {reason}")
    left = f"; {len(made.left_out)} left out" if made.left_out else ""
    print(f"{made.episodes} episodes, {made.frames} frames{left}")
    print(out)
    return 0


def _inspect_pictures(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
    sheet: Path | None = None,
) -> int:
    """Show which pictures and captions of a folder can be trained on, and what is skipped and why (see docs/own-pictures.md).

    Args:
        folder: Pictures with captions in NAME.txt, metadata.jsonl, metadata.csv or the names of sub-folders.
        json_output: Print JSON with every skipped file instead of a summary.
        sheet: Also write a contact sheet of up to 64 pictures as they are trained on: a .png file.
    """
    import json
    import tempfile

    from ornstein.core.progress import track
    from ornstein.data.pictures import contact_sheet, spread
    from ornstein.data.prepared_pictures import prepare_pictures, summary

    if sheet is not None:
        require_png(sheet, "--sheet")
    with tempfile.TemporaryDirectory() as cache:
        pictures = prepare_pictures(folder, Path(cache), _SIDE, track)
        report = pictures.report()
        print(json.dumps(report) if json_output else "\n".join(summary(report)))
        pictures.require_some()
        if sheet is not None:
            contact_sheet(pictures.pixels[spread(len(pictures), _SHEET)]).save(sheet)
    return 0


def _preview_questions(
    out: Path = Path("questions.png"),
    num: int = 12,
    seed: int = 0,
    split: Literal["train", "validation", "held-out"] = "train",
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Draw lessons of the vision-language data that robots learn the meaning of words from: a sheet of pictures, and each one's questions and answers.

    Args:
        out: The sheet: a .png file.
        num: How many pictures.
        seed: Of the stream; trainings use 0.
        split: Which stream: held-out asks for facts and sums that training never does.
        json_output: Print JSON instead of text.
    """
    import json

    import numpy as np

    from ornstein.core.progress import track
    from ornstein.data.pictures import contact_sheet
    from ornstein.data.questions import Lessons
    from ornstein.data.web_pictures import render

    if num < 1:
        raise DataError(f"--num must be at least 1, got {num}")
    require_png(out, "--out")
    stream = Lessons(seed=seed, split=split)
    lessons = [stream.at(k) for k in range(num)]
    pictures = [render(lesson.picture) for lesson in track(lessons, num, "drawing pictures")]
    contact_sheet(np.stack(pictures), columns=min(6, num)).save(out)
    asked = [[{"kind": q.kind, "question": q.text, "answer": q.answer} for q in lesson.questions] for lesson in lessons]
    if json_output:
        print(json.dumps({"pictures": str(out), "lessons": asked}))
        return 0
    for k, questions in enumerate(asked, 1):
        print(f"picture {k}")
        print("\n".join(f"   {one['question']:<64} {one['answer']}" for one in questions))
    print(out)
    return 0
