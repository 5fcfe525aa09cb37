"""From observations (a source's codes and units) to events (catalogue features, canonical units)."""

from modelling.mapping.mapping import Mapping, map_observations

__all__ = ["Mapping", "map_observations"]
