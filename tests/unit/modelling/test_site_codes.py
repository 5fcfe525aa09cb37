"""A site's own codings: read, checked against the catalogue, mapped; models stay as they are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from modelling.catalogue import add_site_codes, load_catalogue
from modelling.errors import CatalogueError
from modelling.mapping import map_observations
from validation.contracts import empty

WARD = "https://st-mary.example/codes"
HEADER = "feature,system,code,label,unit,priority\n"
GOOD = f"heart_rate,{WARD},HF,Heart rate,,\npotassium,{WARD},K-ART,Potassium,mmol/L,1\n"
CATALOGUE = load_catalogue()


def site_file(folder: Path, lines: str, header: str = HEADER) -> Path:
    path = folder / "codes.csv"
    path.write_text(header + lines, encoding="utf-8")
    return path


def observation(*codings: str, value: float, unit: str | None = None) -> dict[str, object]:
    row = dict.fromkeys(empty("observations").columns)
    times = pl.Series([0]).cast(pl.Datetime("us", "UTC")).item()
    return row | {
        "subject_id": 1,
        "time": times,
        "codings": list(codings),
        "value": value,
        "unit_text": unit,
        "status": "final",
        "source_ref": f"Observation/{codings[0][-5:]}",
        "component": 0,
    }


def test_a_site_s_codings_map_and_leave_the_digest(tmp_path: Path) -> None:
    catalogue = add_site_codes(CATALOGUE, site_file(tmp_path, GOOD))
    rows = [
        observation(f"{WARD}|HF", value=71.0, unit="/min"),
        observation(f"{WARD}|K-ART", value=4.1),
        observation(f"{WARD}|unheard", value=1.0),
    ]
    table = pl.DataFrame(rows, schema=dict(empty("observations").schema))
    mapping = map_observations(table, catalogue)
    found = dict(mapping.events.select("code", "numeric_value").iter_rows())
    assert found == pytest.approx({"heart_rate": 71.0, "potassium": 4.1})
    assert mapping.unmapped["coding"].to_list() == [f"{WARD}|unheard"]
    assert map_observations(table, CATALOGUE).events.is_empty()
    assert catalogue.digest == CATALOGUE.digest
    assert CATALOGUE.site_codes is None
    assert catalogue.site_codes is not None


def test_the_digest_of_the_site_s_codings_is_of_their_content(tmp_path: Path) -> None:
    first = add_site_codes(CATALOGUE, site_file(tmp_path, GOOD)).site_codes
    lines = GOOD.splitlines(keepends=True)
    assert add_site_codes(CATALOGUE, site_file(tmp_path, "".join(reversed(lines)))).site_codes == first
    assert add_site_codes(CATALOGUE, site_file(tmp_path, lines[0])).site_codes != first


def test_loinc_goes_first_where_a_resource_has_both(tmp_path: Path) -> None:
    """Unless the file says otherwise: the ward's code would make it a heart rate."""
    both = observation(f"{WARD}|HF", "http://loinc.org|9279-1", value=18.0, unit="/min")
    table = pl.DataFrame([both], schema=dict(empty("observations").schema))
    later = add_site_codes(CATALOGUE, site_file(tmp_path, f"heart_rate,{WARD},HF,,,\n"))
    assert map_observations(table, later).events["code"].to_list() == ["respiratory_rate"]
    first = add_site_codes(CATALOGUE, site_file(tmp_path, f"heart_rate,{WARD},HF,,,1\n"))
    assert map_observations(table, first).events["code"].to_list() == ["heart_rate"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (f"warp_factor,{WARD},HF,,,\n", "of a feature that the catalogue lacks: warp_factor = HF"),
        (f"heart_rate,{WARD},,,,\n", "incomplete"),
        (f"heart_rate,{WARD},HF,,,\nspo2,{WARD},HF,,,\n", "listed twice"),
        ("heart_rate,http://loinc.org,2823-3,,,\n", "that the catalogue knows already: heart_rate = 2823-3"),
        (f"potassium,{WARD},K,,bushels,\n", "in an unknown unit: potassium = K"),
        (f"potassium,{WARD},K,,,0\n", "with a priority below 1"),
        (f"potassium,{WARD},K,,,first\n", "cannot be read"),
    ],
)
def test_what_contradicts_the_catalogue_is_refused_by_name(
    tmp_path: Path, lines: str, complaint: str
) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        add_site_codes(CATALOGUE, site_file(tmp_path, lines))


def test_a_file_that_is_missing_or_has_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be read from"):
        add_site_codes(CATALOGUE, tmp_path / "absent.csv")
    with pytest.raises(CatalogueError, match="columns must be feature, system"):
        add_site_codes(CATALOGUE, site_file(tmp_path, "heart_rate,1\n", header="feature,code\n"))
