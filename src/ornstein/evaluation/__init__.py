"""Measuring: statistics whose intervals mean something, and trials, where policies and simulation meet."""

from ornstein.evaluation.pictures import QualityReport, SetQuality, alignment_rates, quality_report
from ornstein.evaluation.seeds import DEMO_SEED, FIRST_SEEDS, TEST_SEED, VALIDATION_SEED
from ornstein.evaluation.statistics import Rate, mcnemar_exact, newcombe_difference, paired_bootstrap, wilson_interval
from ornstein.evaluation.suites import SuiteComparison, SuiteResult, compare_results, evaluate_suite

__all__ = [
    "DEMO_SEED",
    "FIRST_SEEDS",
    "TEST_SEED",
    "VALIDATION_SEED",
    "QualityReport",
    "Rate",
    "SetQuality",
    "SuiteComparison",
    "SuiteResult",
    "alignment_rates",
    "compare_results",
    "evaluate_suite",
    "mcnemar_exact",
    "newcombe_difference",
    "paired_bootstrap",
    "quality_report",
    "wilson_interval",
]
