"""What a small text-to-image model is asked, and every figure of what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.claims.outcome import Measure
from ornstein.claims.small_text_to_image import Kind, Setting, at_random, pictures
from ornstein.data.icons import icon_names
from ornstein.data.naming import indefinite
from ornstein.data.scenes import BACKGROUNDS, render, sample_scene
from ornstein.evaluation import Rate
from ornstein.images import Extractor, diversity, kernel_distance, manifold_scores, usual_bandwidth
from ornstein.images.alignment import says_background

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.images import EmojiJudge, Features

RIGHT, NAMED, GROUND = "everything right", "named right", "background right"
CONTROL = "control: everything right by another's caption"
#: With a bounded kernel, as D5 and D9 measure.
DISTANCE, RECALL, DIVERSITY = "Gaussian kernel distance × 1000", "recall", "mean distance of two pictures of one caption"
GROUNDS = "backgrounds of one caption"


class Right(NamedTuple):
    """Whether the judge, of all names of the vocabulary, names the one asked for first; whether the background is right; bool (n,)."""

    named: NDArray[np.bool_]
    background: NDArray[np.bool_]

    @property
    def all(self) -> NDArray[np.bool_]:
        return self.named & self.background


@dataclass(frozen=True)
class Exam:
    """captions, asked: one a picture, and what is to be seen there; a background "" is left to the painter.

    real: features of many more pictures of the same law; bandwidth: of the distance to them. open_names: asked for without a
    background, several times each.
    """

    judge: EmojiJudge
    extractor: Extractor
    captions: list[str]
    asked: list[Kind]
    real: Features
    bandwidth: float
    open_names: list[str]

    @property
    def open_captions(self) -> list[str]:
        return [indefinite(name) for name in self.open_names]

    @classmethod
    def small(cls, setting: Setting, *, seed: int, quick: bool) -> Exam:
        """For small models: 240 captions, eight times as many real pictures; eight pictures of every second name."""
        n, copies, of_one = (8, 2, 4) if quick else (240, 8, 8)
        asked, others = (at_random(setting.names, count, seed=seed + k) for k, count in enumerate((n, copies * n)))
        real = pictures(len(others), others, seed=seed)
        return cls._of([kind.caption() for kind in asked], asked, real, icon_names(setting.names)[::2], of_one)

    @classmethod
    def shipped(cls, *, seed: int, quick: bool) -> Exam:
        """For the shipped model: single objects of its own grammar, of all its names."""
        n, copies, openly, of_one = (6, 2, 2, 4) if quick else (240, 4, 20, 8)
        scenes = [sample_scene(i, seed=seed, kind="single", jitter=0.0) for i in range(n)]
        others = [render(sample_scene(i, seed=seed + 1, kind="single", jitter=0.0)) for i in range(copies * n)]
        asked = [Kind(one.objects[0].name, one.background if says_background(one) else "") for one in scenes]
        return cls._of([one.caption for one in scenes], asked, np.stack(others), icon_names(openly), of_one)

    @classmethod
    def _of(cls, captions: list[str], asked: list[Kind], real: NDArray[np.uint8], openly: Sequence[str], of_one: int) -> Exam:
        import ornstein

        judge = ornstein.load("emoji-classifier", expect="emoji-classifier")
        extractor = Extractor.of_judge(judge)
        repeated = [name for name in openly for _ in range(of_one)]
        features = extractor.extract(real)
        return cls(judge, extractor, captions, asked, features, usual_bandwidth(features), repeated)

    def right(self, features: Features, drawn: NDArray[np.uint8], asked: Sequence[Kind] | None = None) -> Right:
        """features: of the drawn pictures, by this exam's extractor. asked: instead of what the captions say."""
        asked = asked or self.asked
        names, grounds = self.judge.first_names(features.values), self.judge.backgrounds(drawn)
        named = [name == kind.name for name, kind in zip(names, asked, strict=True)]
        ground = [kind.background in ("", found) for found, kind in zip(grounds, asked, strict=True)]
        return Right(np.array(named), np.array(ground))

    def score(self, drawn: NDArray[np.uint8]) -> dict[str, Measure]:
        """Every figure of one picture a caption; intervals are over pictures."""
        features = self.extractor.extract(drawn)
        found = self.right(features, drawn)
        shifted = self.right(features, drawn, [*self.asked[1:], self.asked[0]])
        distance, n = kernel_distance(self.real, features, bandwidth=self.bandwidth), len(drawn)
        scores = manifold_scores(replace(self.real, values=self.real.values[:n]), features)  # these depend on the numbers
        low, high = distance.interval
        outcomes = {RIGHT: found.all, NAMED: found.named, GROUND: found.background, CONTROL: shifted.all}
        rates = {name: Rate(int(values.sum()), n) for name, values in outcomes.items()}
        return {
            **{name: Measure(name, rate.rate, rate.interval, n) for name, rate in rates.items()},
            DISTANCE: Measure(DISTANCE, 1000 * distance.value, (1000 * low, 1000 * high), n),
            **{name: Measure(name, getattr(scores, name), n=n) for name in ("precision", RECALL, "coverage")},
        }

    def score_of_one(self, drawn: NDArray[np.uint8]) -> dict[str, Measure]:
        """How different the pictures of one caption are, which says nothing of the background: in features, and in background."""
        n, names, grounds = len(drawn), np.array(self.open_names), np.array(self.judge.backgrounds(drawn))
        found = [len(set(grounds[names == name])) for name in dict.fromkeys(self.open_names)]
        return {
            DIVERSITY: Measure(DIVERSITY, diversity(self.extractor.extract(drawn), self.open_names), n=n),
            GROUNDS: Measure(GROUNDS, float(np.mean(found)), n=n),
        }

    def fresh(self, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Real pictures in the place of a model's: of the small models' captions, and of the open ones, on any background."""
        rng = np.random.default_rng(seed)
        free = [Kind(name, str(rng.choice(list(BACKGROUNDS)))) for name in self.open_names]
        return pictures(len(self.asked), self.asked, seed=seed), pictures(len(free), free, seed=seed + 1)


def floors(scored: dict[str, Measure]) -> dict[str, Measure]:
    """The figures of fresh real pictures, under names that say so."""
    return {name: replace(measure, name=f"floor: {name} of fresh real pictures") for name, measure in scored.items()}
