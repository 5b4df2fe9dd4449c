"""A policy over the network, in the protocol that openpi's robots speak."""
