"""A film drawn again shows what the camera saw when it happened."""

from __future__ import annotations

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.simulation import CONTROL_HZ, FILM_HZ, PickExpert, Replay, TabletopEnv, sample_scene

_A_STEP = round(FILM_HZ / CONTROL_HZ)


def test_it_draws_what_the_cameras_saw() -> None:
    env, replay = TabletopEnv(image_size=64, cameras=("front", "wrist")), Replay(image_size=64)
    try:
        env.world.film = film = []
        observation, _ = env.reset(seed=3)
        seen = [observation["pixels"]]
        for _ in range(12):
            seen.append(env.step(PickExpert().act(env))[0]["pixels"])
        assert env.scene is not None
        assert len(film) == 1 + 12 * _A_STEP
        for camera in ("front", "wrist"):
            again = replay.pictures(env.scene, film[::_A_STEP], camera)
            for picture, original in zip(again, seen, strict=True):
                # The simulator's own picture shows where things were at the beginning of its last step of 4 ms.
                assert np.abs(picture.astype(int) - original[camera]).mean() < 1
        assert np.abs(again[0].astype(int) - again[-1]).mean() > 2  # something happened
        # Another scene in between leaves nothing behind.
        other = replay.pictures(sample_scene(4), film[:1])[0]
        first = replay.pictures(env.scene, film[:1])[0]
        assert np.abs(first.astype(int) - seen[0]["front"]).mean() < 0.5 < np.abs(first.astype(int) - other).mean()
    finally:
        env.close()
        replay.close()


def test_only_who_films_gets_a_film_and_a_foreign_one_is_refused() -> None:
    env, replay = TabletopEnv(image_size=32), Replay(image_size=32)
    try:
        env.reset(seed=0)
        env.step(np.zeros(7, np.float32))
        assert env.world.film is None
        with pytest.raises(DataError, match="coordinates"):
            replay.pictures(sample_scene(0), [np.zeros(3, np.float32)])
    finally:
        env.close()
        replay.close()
