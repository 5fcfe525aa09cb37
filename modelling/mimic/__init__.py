"""MIMIC-IV (Johnson et al. 2023, doi 10.1038/s41597-022-01899-x) to the house's tables."""

from modelling.mimic.reader import map_mimic

__all__ = ["map_mimic"]
