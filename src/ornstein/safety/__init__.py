"""Between a network and a motor: limits that hold whatever comes in."""

from ornstein.safety.limits import Box, ShieldLimits
from ornstein.safety.shield import REASONS, Guarded, Shield

__all__ = ["REASONS", "Box", "Guarded", "Shield", "ShieldLimits"]
