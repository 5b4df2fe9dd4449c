"""`ornstein ask`: a question about a picture, answered by a vision-language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ornstein.commands.parsing import require_png
from ornstein.core.errors import DataError


def ask(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    question: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="QUESTION")],
    /,
    mark: Path | None = None,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Ask a vision-language model, or an RT-2, about a picture. An answer that is a place is told in pixels too.

    Example: ornstein ask vlm-emoji photo.png "where is the lion?" --mark found.png

    Args:
        checkpoint: A shipped name or a folder.
        image: Any picture file; its middle square is looked at.
        question: In the words of the lessons: see `ornstein data preview-questions`.
        mark: Also write the picture as it was looked at, with the place marked: a .png file.
        json_output: Print JSON instead of text.
    """
    import json
    import math

    import ornstein
    from ornstein.commands.looking import marked, require_picture, square_of
    from ornstein.data.questions import place_of

    if mark is not None:
        require_png(mark, "--mark")
    if not question.strip():
        raise DataError("ask something: the question is empty")
    require_picture(image)
    model = ornstein.load(checkpoint, expect="vision-language")
    side = model.network.config.image_size
    pixels = square_of(image, side)
    (answer,) = model.answer(pixels[None], [question])
    try:
        place = [(part + 1) / 2 * side for part in place_of(answer.text)]
    except DataError:
        place = None
    if mark is not None:
        if place is None:
            raise DataError(f"the answer {answer.text!r} is no place: there is nothing to mark")
        marked(pixels, [place]).save(mark)
    probability = math.exp(answer.log_probability)
    if json_output:
        print(json.dumps({"answer": answer.text, "probability": probability, "place": place, "picture": side}))
        return 0
    where = f"   (column {place[0]:.0f}, row {place[1]:.0f} of {side})" if place else ""
    print(f"{answer.text}{where}")
    print(f"probability {probability:.2f}")
    return 0
