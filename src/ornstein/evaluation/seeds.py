"""Which scenes are for what: reported figures, choices on the way, and shows. Demonstrations are below all of them."""

from __future__ import annotations

from typing import Literal

Split = Literal["test", "validation", "demo"]
TEST_SEED = 1_000_000
VALIDATION_SEED = 2_000_000
DEMO_SEED = 3_000_000
FIRST_SEEDS: dict[Split, int] = {"test": TEST_SEED, "validation": VALIDATION_SEED, "demo": DEMO_SEED}
