"""`ornstein doctor`: a healthy machine in one table."""

from __future__ import annotations

from typing import Annotated

import tyro


def doctor(json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False) -> int:
    """Check Python, packages, torch, headless GL, video, disk, memory and the shipped models; name the command that mends.

    Args:
        json_output: Print the checks as JSON.
    """
    from ornstein.doctor import run_doctor

    return run_doctor(as_json=json_output)
