"""Between a network and a motor: limits that hold whatever comes in."""

from ornstein.safety.law import violations
from ornstein.safety.limits import Box, ShieldLimits
from ornstein.safety.shield import REASONS, Guarded, Shield
from ornstein.safety.shielded_policy import ShieldedPolicy

__all__ = ["REASONS", "Box", "Guarded", "Shield", "ShieldLimits", "ShieldedPolicy", "violations"]
