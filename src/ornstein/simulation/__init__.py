"""Simulated worlds: `ornstein.simulation.tabletop`. No torch."""
