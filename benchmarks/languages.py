"""rt1-tabletop told in languages that it was never taught: its sentence encoder knows sixteen, its demonstrations speak English.

.venv/bin/python benchmarks/languages.py    # writes benchmarks/results/languages.json
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from record import RESULTS, share, write

from ornstein.evaluation import mcnemar_exact

POLICY, FIRST, SCENES = "rt1-tabletop", 1_000_000, 60
ENGLISH = "English"
#: Things with their articles, in the case that the sentences below need.
THINGS: dict[str, dict[str, str]] = {
    ENGLISH: {
        name: f"the {name}"
        for name in ("banana", "strawberry", "lemon", "carrot", "mushroom", "pizza", "cheese", "penguin", "butterfly", "car")
    },
    "German": {
        "banana": "die Banane",
        "strawberry": "die Erdbeere",
        "lemon": "die Zitrone",
        "carrot": "die Karotte",
        "mushroom": "den Pilz",
        "pizza": "die Pizza",
        "cheese": "den Käse",
        "penguin": "den Pinguin",
        "butterfly": "den Schmetterling",
        "car": "das Auto",
    },
    "French": {
        "banana": "la banane",
        "strawberry": "la fraise",
        "lemon": "le citron",
        "carrot": "la carotte",
        "mushroom": "le champignon",
        "pizza": "la pizza",
        "cheese": "le fromage",
        "penguin": "le pingouin",
        "butterfly": "le papillon",
        "car": "la voiture",
    },
    "Spanish": {
        "banana": "el plátano",
        "strawberry": "la fresa",
        "lemon": "el limón",
        "carrot": "la zanahoria",
        "mushroom": "la seta",
        "pizza": "la pizza",
        "cheese": "el queso",
        "penguin": "el pingüino",
        "butterfly": "la mariposa",
        "car": "el coche",
    },
}
SENTENCES: dict[str, dict[str, str]] = {
    ENGLISH: {"pick": "pick up {}", "place_in_bowl": "put {} into the bowl"},
    "German": {"pick": "hebe {} hoch", "place_in_bowl": "lege {} in die Schüssel"},
    "French": {"pick": "soulève {}", "place_in_bowl": "mets {} dans le bol"},
    "Spanish": {"pick": "levanta {}", "place_in_bowl": "pon {} en el cuenco"},
}


def solved(skill: str, language: str) -> list[bool]:
    """In the first scenes of a skill whose thing has a name in the table."""
    import torch

    import ornstein
    from ornstein.evaluation.trials import world_for
    from ornstein.simulation.tabletop import SUITES

    torch.set_num_threads(1)
    policy = ornstein.load(POLICY, expect="rt1")
    env, found, seed = world_for(policy.contract, SUITES[skill.replace("_", "-")]), [], FIRST - 1
    while len(found) < SCENES:
        seed += 1
        observation, info = env.reset(seed=seed)
        assert env.scene is not None
        name = env.scene.blocks[env.scene.tasks[0].block or 0].name
        if name not in THINGS[language]:
            continue
        sentence, over = SENTENCES[language][skill].format(THINGS[language][name]), False
        policy.reset()
        while not over:
            observation, _, terminated, truncated, info = env.step(policy.act({**observation, "instruction": sentence}))
            over = terminated or truncated
        found.append(bool(info["is_success"]))
    env.close()
    return found


def measured() -> dict[str, Any]:
    """The same scenes in every language."""
    import ornstein

    jobs = [(skill, language) for language in SENTENCES for skill in SENTENCES[ENGLISH]]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(solved, *zip(*jobs, strict=True)), strict=True))
    by_language = {language: np.concatenate([found[skill, language] for skill in SENTENCES[ENGLISH]]) for language in SENTENCES}
    return {
        "checkpoint": ornstein.load(POLICY).fingerprint,
        "first_seed": FIRST,
        "languages": {
            language: share(int(right.sum()), len(right))
            | {"mcnemar_p_against_english": mcnemar_exact(by_language[ENGLISH], right) if language != ENGLISH else None}
            | {skill: share(sum(found[skill, language]), SCENES) for skill in SENTENCES[ENGLISH]}
            for language, right in by_language.items()
        },
    }


if __name__ == "__main__":
    write(RESULTS / "languages.json", measured())
