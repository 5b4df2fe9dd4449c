"""What RT-1 learns from: the expert's tokens, and aids that are gone when it acts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ornstein.actions.token_heads import token_cross_entropy
from ornstein.policies.cells import nearest_cells
from ornstein.policies.rt1 import POINTERS, RT1, TrainingAids, as_floats, presence

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, UInt8

    from ornstein.networks.vision_language import PlaceNaming


def rt1_loss(
    model: RT1,
    pictures: UInt8[Tensor, "batch frames height width 3"],
    sentence: Float[Tensor, "batch texts 512"],
    state: Float[Tensor, "batch frames state"],
    actions: Float[Tensor, "batch frames length 7"],
    pointers: Float[Tensor, "batch frames 2 2"],
    headings: Float[Tensor, "batch frames 2"],
    rng: torch.Generator,
    *,
    acting: float,
    color_jitter: float,
    word_dropout: float = 0.0,
    views: PointedTensors | None = None,
    names: Float[Tensor, "names 512"] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The action head's loss at every frame, plus training aids.

    Args:
        actions: the expert's chunks, in the contract's units. pointers, headings: see `pointing_loss` and `heading_loss`.
        acting: weight of the head's loss. From actions alone, telling which word means which drawing takes many more episodes; nothing of the
            aids is used when acting.
        color_jitter: largest relative change of brightness and contrast, drawn once a window.
        word_dropout: see `without_words`.
        views: stills with sentences, for the aids alone. names: the encoder's vectors of all names that they speak of.
    """
    batch, frames = pictures.shape[:2]
    floats = jittered(pictures, color_jitter, rng).flatten(0, 1)
    words = model.read(without_words(sentence, word_dropout, rng))
    said = words.repeat_interleave(frames, dim=0)
    goals, turned = pointers.flatten(0, 1), headings.flatten(0, 1)
    if views is not None:
        floats = torch.cat([floats, jittered(views.pictures[:, None], color_jitter, rng)[:, 0]])
        said = torch.cat([said, model.read(without_words(views.sentence, word_dropout, rng))])
        goals, turned = torch.cat([goals, views.pointers]), torch.cat([turned, views.headings])
    features = model.vision(floats, said)
    seen, maps = model.token_learner(features, said)
    decided = model.decide(seen[: batch * frames].view(batch, frames, *seen.shape[1:]), words, state)
    acted = model.head.loss(decided.flatten(0, 1), actions.flatten(0, 1), rng)
    log = {"actions": acted.detach()}
    there, nowhere = torch.ones_like(goals[..., 0]), model.nowhere(said)
    if views is not None:
        there[batch * frames :] = views.there.to(there.dtype)
    pointed = pointing_loss(maps, nowhere, goals, there)
    aligned = heading_loss(model.aids.heading(seen[:, 0, :-2]), turned)
    recognised = acted.new_zeros(())
    if views is not None and names is not None:
        recognised, log["recognised"] = recognition_loss(
            model.aids, features[batch * frames :], views.things, views.places, names
        )
    return acting * acted + pointed + aligned + recognised, {
        **log,
        "pointing": pointed.detach(),
        "points_right": (_points_right(maps, goals) * there).sum() / there.sum(),
        "there_right": ((presence(maps, nowhere) > 0.5) == (there > 0.5)).float().mean(),
        "heading": aligned.detach(),
    }


def decision_loss(
    model: RT1,
    seen: Float[Tensor, "batch frames tokens channels"],
    words: Float[Tensor, "batch language"],
    state: Float[Tensor, "batch frames state"],
    actions: Float[Tensor, "batch frames length 7"],
    rng: torch.Generator,
    *,
    place_noise: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The action head's loss at what is decided from tokens that were seen, and sentences that were read, before.

    Args:
        place_noise: see `with_place_noise`.
    """
    noisy = with_place_noise(seen, place_noise, rng)
    loss = model.head.loss(model.decide(noisy, words, state).flatten(0, 1), actions.flatten(0, 1), rng)
    return loss, {"actions": loss.detach()}


def with_place_noise(
    seen: Float[Tensor, "batch frames tokens channels"], amount: float, rng: torch.Generator
) -> Float[Tensor, "batch frames tokens channels"]:
    """Tokens whose places are a little off: an eye is less sure of scenes that it was not trained on.

    Args:
        amount: standard deviation in halves of the picture.
    """
    noise = torch.randn(seen[..., -2:].shape, generator=rng, device=seen.device) * amount
    return torch.cat([seen[..., :-2], seen[..., -2:] + noise], dim=-1)


def action_loss(
    logits: Float[Tensor, "batch frames action bins"], tokens: Int64[Tensor, "batch frames action"], smoothing_bins: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of a network that decides in bins itself, as `PaperRT1` does, and figures to watch.

    Args:
        logits, tokens: the arm's seven dimensions first.
        smoothing_bins: standard deviation in bins of a Gaussian around the expert's bin; neighbours are nearly right. 0: one-hot.
    """
    cross_entropy = token_cross_entropy(logits, tokens, smoothing_bins)
    with torch.no_grad():
        half = logits.shape[-1] // 2
        gripper = ((logits[..., 6, :].argmax(-1) >= half) == (tokens[..., 6] >= half)).float().mean()
        error = (logits[..., :3, :].argmax(-1) - tokens[..., :3]).abs().float().mean()
    return cross_entropy, {"tokens": cross_entropy.detach(), "bins_off": error, "gripper_right": gripper}


def without_words(
    sentence: Float[Tensor, "batch texts 512"], share: float, rng: torch.Generator
) -> Float[Tensor, "batch texts 512"]:
    """With each word piece left out with that chance, never the vector of the whole: so that a network understands wordings that it never
    read."""
    if share <= 0:
        return sentence
    kept = torch.rand(sentence.shape[:2], generator=rng, device=sentence.device) >= share
    kept[:, 0] = True
    return sentence * kept[..., None]


class PointedTensors(NamedTuple):
    """Stills: pictures uint8 (N, H, W, 3), sentences (N, 1 + pieces, 512), pointers (N, 2, 2), headings (N, 2), what is there (N, 2); the numbers of the
    names of what lies there, int64 (N, M), −1 for none, and where, (N, M, 2) as pointers."""

    pictures: Tensor
    sentence: Tensor
    pointers: Tensor
    headings: Tensor
    there: Tensor
    things: Tensor
    places: Tensor


class SpokenTensors(NamedTuple):
    """Sentences (N, 1 + pieces, 512); the numbers of the names of what they move and where to, and of the skill, int64 (N,)."""

    sentence: Tensor
    moved: Tensor
    goal: Tensor
    skill: Tensor


def reading_loss(
    model: RT1, spoken: SpokenTensors, names: Float[Tensor, "names 512"], rng: torch.Generator, word_dropout: float
) -> Tensor:
    """`naming_loss` of what the network reads of sentences with words left out, and the cross-entropy of telling which skill they ask for."""
    words = functional.silu(model.read(without_words(spoken.sentence, word_dropout, rng)))
    named = naming_loss(model.aids.naming(words), spoken.moved, spoken.goal, names)
    return named + functional.cross_entropy(model.aids.skill(words).float(), spoken.skill)


def naming_loss(
    read: Float[Tensor, "batch both"],
    moved: Int64[Tensor, " batch"],
    goal: Int64[Tensor, " batch"],
    names: Float[Tensor, "names 512"],
) -> Tensor:
    """Cross-entropy of telling, among all names, what a sentence moves and where to.

    Args:
        read: two vectors of 512 numbers a sentence, whose products with the names' vectors, times 20, are the logits.
    """
    logits = read.float().view(len(read), POINTERS, -1) @ names.T * 20.0
    return functional.cross_entropy(logits[:, 0], moved) + functional.cross_entropy(logits[:, 1], goal)


def recognition_loss(
    aids: TrainingAids | PlaceNaming,
    features: Float[Tensor, "batch channels h w"],
    things: Int64[Tensor, "batch most"],
    places: Float[Tensor, "batch most 2"],
    names: Float[Tensor, "names 512"],
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of telling, among all names, what lies at each place, and the share told rightly.

    A pointer teaches one drawing a picture, and only through the words that ask for it. This teaches all of them at once, in the features
    that the maps match with the words.

    Args:
        things: numbers of names, −1 where there is nothing. places: (column, row), in the picture within [−1, 1]; others do not count.
    """
    counts = (things >= 0) & (places.abs() < 1).all(-1)
    at_places = functional.grid_sample(features.float(), places[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
    standard = (names - names.mean(0)) / names.std(0).clamp_min(1e-6)
    logits = aids.thing(at_places[counts]).float() @ aids.name(standard).float().T * aids.thing.out_features**-0.5
    wanted = things[counts]
    right = (logits.argmax(-1) == wanted).sum() / counts.sum().clamp(min=1)
    return functional.cross_entropy(logits, wanted, reduction="sum") / counts.sum().clamp(min=1), right.detach()


def heading_loss(read: Float[Tensor, "batch 2"], headings: Float[Tensor, "batch 2"]) -> Tensor:
    """Squared error of (sin 4ψ, cos 4ψ) of the moved block's heading ψ, which a quarter turn leaves alone; (0, 0) where nothing turns."""
    counts = headings.square().sum(-1) > 0.5
    return ((read.float() - headings).square().sum(-1) * counts).sum() / counts.sum().clamp(min=1)


def pointing_loss(
    maps: Float[Tensor, "batch tokens cells"],
    nowhere: Float[Tensor, "batch 2"],
    pointers: Float[Tensor, "batch 2 2"],
    there: Float[Tensor, "batch 2"],
) -> Tensor:
    """Cross-entropy between the first two maps, each with one more cell that is nowhere, and the pointers: what is moved and where to,
    (column, row) in [−1, 1].

    A pointer is shared among its four nearest cells so that the map's mean place is the pointer's.

    Args:
        there: 1 where there is such a thing; 0 where the pointer does not count and nowhere is right.
    """
    grid = math.isqrt(maps.shape[-1])
    wanted = nearest_cells(pointers, grid) * there[..., None]
    every = torch.cat([maps[:, :POINTERS], nowhere[..., None].to(maps.dtype)], dim=-1).log_softmax(-1)
    return -((wanted * every[..., :-1]).sum(-1) + (1 - there) * every[..., -1]).mean()


@torch.no_grad()
def _points_right(maps: Tensor, pointers: Tensor) -> Tensor:
    """Whether a map is highest within a cell of its pointer, (batch, 2)."""
    grid = math.isqrt(maps.shape[-1])
    best = maps[:, :POINTERS].argmax(-1)
    place = ((pointers + 1) / 2 * grid).floor().clamp(0, grid - 1)
    away = torch.maximum((best // grid - place[..., 1]).abs(), (best % grid - place[..., 0]).abs())
    return (away <= 1).float()


def jittered(pictures: Tensor, amount: float, rng: torch.Generator) -> Tensor:
    """Brightness and contrast changed a little, the same for all frames of a window; floats, channels first."""
    floats = as_floats(pictures)
    if amount <= 0:
        return floats
    shape = (len(floats), 1, 1, 1, 1)
    draw = torch.rand((2, *shape), generator=rng, device=floats.device) * 2 - 1
    return ((floats - 0.5) * (1 + amount * draw[0]) + 0.5 + 0.5 * amount * draw[1]).clamp(0, 1)
