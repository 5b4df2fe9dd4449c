"""RT-2, small (Zitkovich et al. 2023, "RT-2: Vision-Language-Action Models Transfer Web Knowledge to Robotic Control").

A vision-language model whose vocabulary has tokens for actions: what answers questions about pictures also moves the robot, by the same weights.

    picture ─▶ places ┐
    (arm state ─▶ one more, optional) ─┤◀─ decoder: "Q: what action should the robot take to …? A:" ─▶ places, seven action tokens
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.actions.token_heads import soft_bins
from ornstein.networks.transformers_backbone import TransformersConfig, TransformersNetwork
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies.acting import ActingConfig, ActingNetwork
from ornstein.policies.looking import looking_loss
from ornstein.policies.texts import TextTensors, padded
from ornstein.policies.vision_language import VisionLanguageModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.language.text_tokenizer import ActionTokens
    from ornstein.policies.robot_speech import RobotSpeech


@dataclass(frozen=True)
class RT2Config(VisionLanguageConfig, ActingConfig):
    """The small one, of our own parts."""

    def __post_init__(self) -> None:
        VisionLanguageConfig.__post_init__(self)
        ActingConfig.__post_init__(self)


class RT2Network(ActingNetwork, VisionLanguageNetwork):
    """Our own vision-language network, which may also feel a robot's state and have an expert."""

    config: RT2Config
    adapted = ("vision", "blocks")

    def __init__(
        self, config: RT2Config, head: Mapping[str, Any] | None = None, contract: EmbodimentContract | None = None
    ) -> None:
        """Arguments and errors as for `ActingNetwork._add_parts`."""
        VisionLanguageNetwork.__init__(self, config)
        self._add_parts(head, contract)


@dataclass(frozen=True, kw_only=True)
class TransformersRT2Config(TransformersConfig, ActingConfig):
    """One on a backbone of the transformers library."""

    def __post_init__(self) -> None:
        TransformersConfig.__post_init__(self)
        ActingConfig.__post_init__(self)


class TransformersRT2(ActingNetwork, TransformersNetwork):
    """A backbone of the transformers library, which may also feel a robot's state and have an expert."""

    config: TransformersRT2Config
    adapted = ("backbone.model",)

    def __init__(
        self,
        config: TransformersRT2Config,
        head: Mapping[str, Any] | None = None,
        contract: EmbodimentContract | None = None,
        *,
        backbone: nn.Module | None = None,
    ) -> None:
        """Arguments and errors as for `ActingNetwork._add_parts` and `TransformersNetwork`."""
        TransformersNetwork.__init__(self, config, backbone)
        self._add_parts(head, contract)


def acting_network(
    config: Mapping[str, Any], head: Mapping[str, Any] | None, contract: EmbodimentContract | None
) -> ActingNetwork:
    """The network of a checkpoint that acts, its weights fresh.

    Raises:
        DataError, TypeError: the configuration is of no such network.
    """
    if "backbone" in config:
        return TransformersRT2(TransformersRT2Config(**config), head, contract)
    return RT2Network(RT2Config(**config), head, contract)


def with_actions(model: VisionLanguageModel, *, bins: int, manner: ActionTokens, state_size: int) -> VisionLanguageModel:
    """The same model with tokens for actions, which mean nothing yet, and with an eye for the robot's state. All else answers as before.

    New parameters are drawn from torch's global generator: call it within `training.initialise`. A backbone of the transformers library is taken over, not
    copied.

    Raises:
        DataError: see `TextTokenizer.with_actions`.
    """
    tokenizer = model.tokenizer.with_actions(bins, manner)
    known = {one.name: getattr(model.network.config, one.name) for one in fields(model.network.config)}
    changed = {**known, "vocabulary": tokenizer.size, "state_size": state_size}
    network: ActingNetwork
    if isinstance(model.network, TransformersNetwork):
        network = TransformersRT2(TransformersRT2Config(**changed), backbone=model.network.backbone)
    else:
        network = RT2Network(RT2Config(**changed))
        own, weights = network.state_dict(), model.network.state_dict()
        vectors = own["tokens_in.weight"].clone()
        vectors[: len(weights["tokens_in.weight"])] = weights["tokens_in.weight"]
        network.load_state_dict({**own, **weights, "tokens_in.weight": vectors})
    # An overwritten token's old meaning goes.
    network.order_tokens(tokenizer.actions)
    return VisionLanguageModel(network, tokenizer)


def robot_texts(
    speech: RobotSpeech,
    instructions: Sequence[str],
    actions: NDArray[np.floating],
    pointers: NDArray[np.floating],
) -> TextTensors:
    """What robots are told and should do, padded, as `speech_loss` takes it.

    Args:
        actions: (B, 7). pointers: (B, 2, 2).
    """
    said = zip(instructions, actions, pointers, strict=True)
    return padded([(speech.question(told), speech.answer(action, places)) for told, action, places in said], speech.tokenizer.pad)


def pointing_texts(
    speech: RobotSpeech, instructions: Sequence[Sequence[str]], pointers: Sequence[NDArray[np.floating]]
) -> TextTensors:
    """What robots are told about stills, of which nobody knows what to do, but where: the first part of what they should say.

    Args:
        instructions: of each still, as many as there are; shorter lists are filled up with texts of nothing, which no loss counts. pointers: of each still,
            (instructions, 2, 2).
    """
    most = max(len(told) for told in instructions)
    said: list[tuple[list[int], list[int]]] = []
    for told, places in zip(instructions, pointers, strict=True):
        said += [(speech.question(one), speech.where(where)) for one, where in zip(told, places, strict=True)]
        said += [([], [])] * (most - len(told))
    return padded(said, speech.tokenizer.pad)


def speech_loss(
    network: ActingNetwork, speech: RobotSpeech, seen: Tensor, texts: TextTensors, smoothing_bins: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy a token of what a robot should say, over all tokens of the vocabulary, with `looking_loss`.

    Args:
        seen: of `ActingNetwork.with_state`, one text each. smoothing_bins: standard deviation in bins of a Gaussian around an action's right bin that is aimed
            at: neighbours are nearly right. 0: the right bin alone.
    """
    wanted = texts.answered[:, 1:]
    read, looks = network.read_and_look(seen, texts.tokens[:, :-1], texts.answered[:, :-1])
    logits = network.say(read[wanted]).log_softmax(-1)
    right = texts.tokens[:, 1:][wanted]
    actions = torch.tensor(speech.tokenizer.actions, device=right.device)
    number = torch.full((speech.tokenizer.size,), -1, device=right.device)
    number[actions] = torch.arange(len(actions), device=right.device)
    bins = number[right]
    acts = bins >= 0
    per_token = torch.empty(len(right), device=right.device)
    per_token[~acts] = functional.nll_loss(logits[~acts], right[~acts], reduction="none")
    soft = soft_bins(bins[acts], len(actions), smoothing_bins)
    per_token[acts] = -(soft * logits[acts][:, actions]).sum(-1)
    with torch.no_grad():
        off = (logits[acts][:, actions].argmax(-1) - bins[acts]).abs().float().mean()
        said = (logits[~acts].argmax(-1) == right[~acts]).float().mean()
    looking, log = (0.0, {}) if looks is None else looking_loss(looks, texts, speech.places)
    return per_token.mean() + looking, {**log, "actions": per_token[acts].mean().detach(), "bins_off": off, "places_right": said}
