"""Pictures that ship with the ecosystem: OpenMoji's drawings by name. No torch."""

from ornstein.assets import openmoji as openmoji

__all__ = ["openmoji"]
