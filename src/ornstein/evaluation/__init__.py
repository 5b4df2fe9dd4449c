"""Measuring: statistics whose intervals mean something, and rollouts, where policies and simulation meet."""

from ornstein.evaluation.rollouts import (
    DEMO_SEED,
    TEST_SEED,
    VALIDATION_SEED,
    EpisodeResult,
    EvaluationResult,
    evaluate_policy,
    rollout,
)
from ornstein.evaluation.statistics import mcnemar_exact, newcombe_difference, paired_bootstrap, wilson_interval

__all__ = [
    "DEMO_SEED",
    "TEST_SEED",
    "VALIDATION_SEED",
    "EpisodeResult",
    "EvaluationResult",
    "evaluate_policy",
    "mcnemar_exact",
    "newcombe_difference",
    "paired_bootstrap",
    "rollout",
    "wilson_interval",
]
