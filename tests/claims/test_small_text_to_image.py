"""The trainings and drawings that D6 and D7 share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ornstein.claims import small_text_to_image as small
from ornstein.claims.exam import CONTROL, DISTANCE, DIVERSITY, GROUNDS, NAMED, RIGHT, Exam, floors
from ornstein.claims.small_text_to_image import QUICK, Data, Kind, Space, Way, draw, kinds, latents, scene, trained
from ornstein.core.checkpoint import read_checkpoint
from ornstein.data.scenes import BACKGROUNDS
from ornstein.diffusion import NoiseSchedule
from ornstein.images import to_tensor
from ornstein.networks.dit import DiT, DiTConfig, TextCondition
from ornstein.networks.weight_files import load_strictly

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

TINY = replace(QUICK, steps=4, snapshots=4)
CONFIG = DiTConfig(width=16, depth=1, heads=2)


def _space() -> Space:
    return Space("tiny", lambda: DiT(CONFIG), (4, 16, 16), "v_prediction", to_tensor, lambda x: x, {"width": 16})


def _data(fails_at: int = 1000) -> Data:
    """Noise for pictures; reading batch number `fails_at` and all after it fails, as a killed process does."""
    x_0 = torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    read: list[int] = []

    def rows(indices: NDArray[np.int64]) -> torch.Tensor:
        read.append(len(indices))
        if len(read) > fails_at:
            raise InterruptedError
        return x_0[indices]

    return Data(rows, np.tile(np.arange(5, dtype=np.int32), (16, 1)))


def _train(folder: Path, data: Data, **changes: Any) -> dict[int, nn.Module]:
    settings = {"drop": 0.1, "seed": 0, "batch": 4, "steps": 4} | changes
    return trained(_space(), data, TINY, folder, **settings)


def _same(a: dict[int, nn.Module], b: dict[int, nn.Module]) -> bool:
    pairs = [zip(a[step].state_dict().values(), b[step].state_dict().values(), strict=True) for step in a]
    return list(a) == list(b) and all(torch.equal(x, y) for pair in pairs for x, y in pair)


def test_a_training_that_was_interrupted_goes_on_to_the_same_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _train(tmp_path / "a", _data())
    assert list(whole) == [1, 2, 3, 4]
    assert not _same({4: whole[4]}, {4: whole[3]})
    with pytest.raises(InterruptedError):
        _train(tmp_path / "b", _data(fails_at=2))
    assert len(list((tmp_path / "b").glob("*/checkpoints/step-*"))) == 2
    with monkeypatch.context() as patch:  # killed again, between the last checkpoint and the snapshots
        patch.setattr(small, "_keep_averages", lambda out: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _train(tmp_path / "b", _data(fails_at=2))  # the two batches that were not yet learnt from
    assert _same(_train(tmp_path / "b", _data(fails_at=0)), whole)
    assert not list((tmp_path / "b").glob("*/checkpoints"))
    assert _same(_train(tmp_path / "b", _data(fails_at=0)), whole)  # read, not trained
    (exported,) = (tmp_path / "b").glob("*/model")
    assert _same({4: load_strictly(DiT(CONFIG), read_checkpoint(exported))}, {4: whole[4]})  # the moving average


def test_other_settings_are_another_training(tmp_path: Path) -> None:
    first = _train(tmp_path, _data())
    for changes in ({"drop": 0.2}, {"seed": 1}, {"batch": 2}):
        assert not _same(_train(tmp_path, _data(), **changes), first)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_caption_is_dropped_as_often_as_said_and_from_the_same_ones_first() -> None:
    data = _data()
    gone = {rate: ~small._batch(np.arange(4000), data, 0, rate)["mask"].any(1).numpy() for rate in (0.0, 0.1, 0.2)}
    assert not gone[0.0].any()
    for rate in (0.1, 0.2):
        assert abs(gone[rate].mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / 4000)
    assert (gone[0.2] | ~gone[0.1]).all()


def test_scenes_are_of_their_kind_and_say_the_background_three_times_in_four() -> None:
    shown = kinds(4)
    assert len(set(shown)) == 4 * len(BACKGROUNDS)
    scenes = [scene(i, shown, seed=3) for i in range(480)]
    assert [Kind(one.objects[0].name, one.background) for one in scenes] == shown * 10
    assert scenes == [scene(i, shown, seed=3) for i in range(480)]
    assert len({(one.objects[0].x, one.objects[0].size, one.background_rgb) for one in scenes}) > 470
    says = [one.background in one.caption for one in scenes]
    assert 0.68 < np.mean(says) < 0.82
    assert Kind("red apple", "orange").caption() == "a red apple on an orange background"
    assert Kind("red apple", "orange").caption(says_background=False) == "a red apple"


class _Colour(torch.nn.Module):
    """The exact v of data that are one flat picture for each caption, the sign of a number of its second piece, and another for ∅."""

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: TextCondition) -> torch.Tensor:
        alpha, sigma = NoiseSchedule.cosine().alpha_sigma(t, x_t)
        said = torch.where(condition.mask[:, 0], condition.pieces[:, 1, 5].sign() / 2, torch.tensor(-0.25))
        x_0 = said[:, None, None, None].expand_as(x_t)
        return alpha * (x_t - alpha * x_0) / sigma - sigma * x_0


def test_drawing_follows_the_caption_as_far_as_w_says() -> None:
    """The guided x_0 is −1/4 + w (c + 1/4); what lies beyond ±1 is cut off, and counted."""
    space = _space()._replace(shape=(3, 8, 8))
    captions = ["an apple", "a fox", "a car", "a key"]
    c = small.condition_of(captions).pieces[:, 1, 5].sign().numpy() / 2
    assert len(set(c.tolist())) == 2
    for w in (0.0, 1.0, 2.0, 4.0):
        drawn = draw(space, _Colour(), captions, range(4), Way(w, steps=5), seed=0, name="")
        wanted = -0.25 + w * (c + 0.25)
        np.testing.assert_allclose(drawn.pictures.mean((1, 2, 3)), (wanted.clip(-1, 1) + 1) * 127.5, atol=0.6)
        assert drawn.clipped == pytest.approx((np.abs(wanted) > 1).mean())
    off = draw(space, _Colour(), captions, range(4), Way(4.0, interval=(2000, 3000), steps=5), seed=0, name="")
    np.testing.assert_allclose(off.pictures.mean((1, 2, 3)), (c + 1) * 127.5, atol=0.6)


def test_a_picture_depends_on_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And on its caption only where w is not 0."""
    torch.manual_seed(0)
    network = DiT(CONFIG)
    torch.nn.init.normal_(network.patch_out.weight)
    torch.nn.init.normal_(network.blocks[0].cross_attention.out.weight)
    space = _space()._replace(decode=lambda x: x[:, :3])

    def pictures(captions: list[str], numbers: list[int], w: float) -> NDArray[np.int64]:
        return draw(space, network, captions, numbers, Way(w, steps=3), seed=5, name="").pictures.astype(int)

    both = pictures(["an apple", "a fox"], [3, 4], 2.0)
    assert np.abs(both[1:] - pictures(["a fox"], [4], 2.0)).max() <= 1
    assert np.abs(both[1:] - pictures(["a key"], [4], 2.0)).max() > 20
    assert (pictures(["a fox"], [4], 0.0) == pictures(["a key"], [4], 0.0)).all()


@pytest.fixture(scope="module")
def exam() -> Exam:
    return Exam.small(replace(QUICK, names=6), seed=5, quick=True)


def test_real_pictures_pass_and_shuffled_ones_do_not(exam: Exam) -> None:
    again, free = exam.fresh(seed=6)
    scored = exam.score(again) | exam.score_of_one(free)
    assert scored[RIGHT].value == 1.0
    assert scored[CONTROL].value < 0.5
    low, high = scored[DISTANCE].interval or (1.0, 0.0)
    assert low < 0 < high
    shuffled = exam.score(np.roll(again, 1, axis=0))
    assert shuffled[NAMED].value < 0.7
    assert shuffled[DISTANCE].value == pytest.approx(scored[DISTANCE].value)  # a set, whatever its order
    alike = exam.score_of_one(np.repeat(free[::4], 4, axis=0))
    assert alike[DIVERSITY].value < 1e-4 < scored[DIVERSITY].value
    assert alike[GROUNDS].value == 1.0 < scored[GROUNDS].value
    assert all("floor" in measure.name for measure in floors(scored).values())


def test_a_background_left_to_the_painter_is_right_in_any_colour(exam: Exam) -> None:
    again, _ = exam.fresh(seed=6)
    features = exam.extractor.extract(again)
    other = [kind._replace(background="white" if kind.background != "white" else "black") for kind in exam.asked]
    assert not exam.right(features, again, other).background.any()
    assert exam.right(features, again, [kind._replace(background="") for kind in other]).all.all()


def test_latents_are_those_of_the_recipe() -> None:
    from ornstein.networks.autoencoder import DOWNSAMPLING

    space = latents(QUICK)
    data = small.training_data(QUICK, space, encoded=True)
    x_0 = data.x_0(np.arange(4))
    assert x_0.shape == (4, *space.shape)
    assert space.shape[1] * DOWNSAMPLING == 128
    pixels = small.pictures(4, kinds(QUICK.names), seed=small.TRAINING_SEED)
    assert ((space.decode(x_0) - to_tensor(pixels)).square().mean().sqrt()) < 0.2
    assert data.pieces.shape[0] == QUICK.scenes
