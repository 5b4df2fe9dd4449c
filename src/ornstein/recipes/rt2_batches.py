"""What a step of co-fine-tuning shows an RT-2, and its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ornstein.data.questions import Lessons
    from ornstein.policies import ActingNetwork
    from ornstein.policies.robot_speech import RobotSpeech
    from ornstein.recipes.rt1_examples import RT1Examples
    from ornstein.recipes.rt2_tabletop import RT2TabletopRecipe
    from ornstein.training import Batch

#: Lessons of a run that starts from a model that has seen the first ones.
_FIRST_LESSON = 1_000_000


class RT2Batches:
    """Pictures of the robot's data and of lessons, `robot_share` of the first, spread evenly over the stream."""

    def __init__(self, recipe: RT2TabletopRecipe, examples: RT1Examples, speech: RobotSpeech) -> None:
        from ornstein.data.questions import Lessons

        self._recipe, self._examples, self._speech = recipe, examples, speech
        self._lessons: Lessons = Lessons(seed=recipe.data_seed, questions=recipe.questions, without=recipe.without)

    def at(self, indices: np.ndarray) -> Batch:
        """Picture i is a function of (seed, i)."""
        # How many of the robot's there are before each, and of stills before each of those: where a count rises, there is one more.
        before, after = _counts(indices, self._recipe.robot_share)
        robots = after > before
        stills = [np.arange(*ends) for ends in zip(*_counts(before[robots], self._recipe.stills), strict=True)]
        batch: Batch = {}
        if robots.any():
            batch |= self._acted(indices[robots])
        if any(len(some) for some in stills):
            batch |= self._pointed(np.concatenate(stills))
        if not robots.all():
            batch |= self._asked(indices[~robots])
        return batch

    def _acted(self, indices: np.ndarray) -> Batch:
        import torch

        from ornstein.policies import robot_texts

        drawn = self._examples.windows.at(indices)
        texts = robot_texts(self._speech, drawn.tasks, drawn.actions[:, 0], drawn.pointers[:, 0])
        return {
            "robot_pictures": torch.from_numpy(drawn.pictures[:, 0]),
            "robot_state": torch.from_numpy(drawn.states[:, 0, : self._recipe.state_size]),
            "robot_tokens": texts.tokens,
            "robot_answered": texts.answered,
        }

    def _pointed(self, indices: np.ndarray) -> Batch:
        import torch

        from ornstein.policies import pointing_texts

        views = self._examples.views
        assert views is not None
        pictures, said, pointers = views.stills(indices)
        texts = pointing_texts(self._speech, said, pointers)
        return {"still_pictures": torch.from_numpy(pictures), "still_tokens": texts.tokens, "still_answered": texts.answered}

    def _asked(self, indices: np.ndarray) -> Batch:
        import torch

        from ornstein.data.plans import plan_of, plan_question
        from ornstein.data.web_pictures import render
        from ornstein.policies import text_tensors

        lessons = [self._lessons.at(_FIRST_LESSON + int(i)) for i in indices]
        about, asked = self._recipe.questions + self._recipe.plans, list[tuple[str, str] | None]()
        for number, lesson in zip(indices, lessons, strict=True):
            texts = [(question.text, question.answer) for question in lesson.questions]
            if self._recipe.plans:
                plan = plan_of(lesson, np.random.default_rng([self._recipe.data_seed, int(number), 67]))
                texts.append((plan_question(plan.instruction), plan.plain))
            asked += [*texts, *[None] * (about - len(texts))]
        texts_of_all = text_tensors(self._speech.tokenizer, asked)
        return {
            "web_pictures": torch.from_numpy(np.stack([render(lesson.picture) for lesson in lessons])),
            "web_tokens": texts_of_all.tokens,
            "web_answered": texts_of_all.answered,
        }


def _counts(numbers: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """How many of something that comes `rate` times with each there are before each of these numbers, and with it."""
    return np.floor(numbers * rate).astype(np.int64), np.floor((numbers + 1) * rate).astype(np.int64)


def co_fine_tuning_loss(
    recipe: RT2TabletopRecipe, speech: RobotSpeech, network: ActingNetwork, batch: Batch, rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy a token of what the robot should say, weighed by `robot_share`, and of answers, by the rest."""
    from ornstein.policies import TextTensors, answer_loss, jittered, speech_loss

    def seen(pictures: Tensor) -> Tensor:
        return network.see(jittered(pictures[:, None], recipe.color_jitter, rng)[:, 0])

    log: dict[str, Tensor] = {}
    losses: list[Tensor] = []
    if "robot_pictures" in batch:
        texts = TextTensors(batch["robot_tokens"], batch["robot_answered"])
        felt = network.with_state(seen(batch["robot_pictures"]), batch["robot_state"])
        acted, more = speech_loss(network, speech, felt, texts, recipe.smoothing_bins)
        losses.append(recipe.robot_share * acted)
        log |= more
    if "still_pictures" in batch:
        texts = TextTensors(batch["still_tokens"], batch["still_answered"])
        pointed, more = answer_loss(network, seen(batch["still_pictures"]), texts, speech.places)
        log["pointed_right"] = more["right"]
        losses.append(recipe.robot_share * pointed)
    if "web_pictures" in batch:
        texts = TextTensors(batch["web_tokens"], batch["web_answered"])
        answered, more = answer_loss(network, network.see(batch["web_pictures"]), texts, speech.places)
        losses.append((1 - recipe.robot_share) * answered)
        log |= {name: more[name] for name in ("answers", "right")}
    return sum(losses[1:], losses[0]), log
