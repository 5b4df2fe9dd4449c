"""The ledger: statements of the field, each an experiment that anyone can rerun, with an interval and a verdict."""

from ornstein.claims.ledger import LEDGER, Claim, find_claims
from ornstein.claims.outcome import Measure, Outcome, Verdict

__all__ = ["LEDGER", "Claim", "Measure", "Outcome", "Verdict", "find_claims"]
