"""The catalogue as a site uses it: as shipped, with the site's own codings."""

from __future__ import annotations

from deploy.settings import Settings
from modelling.catalogue import Catalogue, add_site_codes, load_catalogue


def site_catalogue(settings: Settings) -> Catalogue:
    """Return the catalogue with the codings of ``site.codes``, where the site has any.

    Raises
    ------
    CatalogueError
        If the site's file is missing, malformed or contradicts the catalogue.
    """
    catalogue = load_catalogue()
    return add_site_codes(catalogue, settings.site.codes) if settings.site.codes else catalogue
