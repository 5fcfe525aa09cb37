"""The feature catalogue: which codes, in which units, mean which feature."""

from modelling.catalogue.catalogue import UCUM, Catalogue, fold_text, load_catalogue
from modelling.catalogue.loinc import check_digit

__all__ = ["UCUM", "Catalogue", "check_digit", "fold_text", "load_catalogue"]
