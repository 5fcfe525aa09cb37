"""PhysioNet/Computing in Cardiology Challenge 2012 (doi 10.22489/CinC.2012.246) to the house's tables."""

from modelling.physionet2012.reader import map_physionet2012, read_outcomes, read_records

__all__ = ["map_physionet2012", "read_outcomes", "read_records"]
