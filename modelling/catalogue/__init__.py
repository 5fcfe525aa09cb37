"""The feature catalogue: which codes, in which units, mean which feature."""

from modelling.catalogue.catalogue import UCUM, Catalogue, fold_text, load_catalogue
from modelling.catalogue.loinc import check_digit
from modelling.catalogue.site_codes import add_site_codes

__all__ = ["UCUM", "Catalogue", "add_site_codes", "check_digit", "fold_text", "load_catalogue"]
