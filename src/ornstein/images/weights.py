"""The first stage, from its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ornstein.core.errors import CheckpointError, DataError
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.networks.weight_files import load_strictly

if TYPE_CHECKING:
    from ornstein.core.checkpoint import Checkpoint


def load_autoencoder(checkpoint: Checkpoint) -> Autoencoder:
    """The first stage, ready for use.

    Raises:
        CheckpointError: configuration or weights do not fit.
    """
    try:
        network = Autoencoder(AutoencoderConfig(**checkpoint.config))
    except (TypeError, DataError) as error:
        raise CheckpointError(f"the configuration of {checkpoint.path} does not fit an autoencoder: {error}") from error
    return load_strictly(network, checkpoint).eval()
