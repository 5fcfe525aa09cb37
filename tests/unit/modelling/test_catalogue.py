"""The catalogue holds together, and its codes are what they claim to be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from modelling.catalogue import Catalogue, check_digit, load_catalogue
from modelling.catalogue.catalogue import FOLDER
from modelling.errors import CatalogueError

BENCHMARK_17 = {
    "capillary_refill",
    "diastolic_bp",
    "fio2",
    "gcs_eye",
    "gcs_motor",
    "gcs_total",
    "gcs_verbal",
    "glucose",
    "heart_rate",
    "height",
    "mean_bp",
    "spo2",
    "respiratory_rate",
    "systolic_bp",
    "temperature",
    "weight",
    "ph",
}
P12_SERIES = """
    Albumin ALP ALT AST Bilirubin BUN Cholesterol Creatinine DiasABP FiO2 GCS Glucose HCO3 HCT HR K Lactate Mg
    MAP MechVent Na NIDiasABP NIMAP NISysABP PaCO2 PaO2 pH Platelets RespRate SaO2 SysABP Temp TroponinI
    TroponinT Urine WBC Weight
"""
P12_NAMES = set(P12_SERIES.split())
YAIB_48 = {
    "alb": "albumin",
    "alp": "alkaline_phosphatase",
    "alt": "alt",
    "ast": "ast",
    "be": "base_excess",
    "bicar": "bicarbonate",
    "bili": "bilirubin_total",
    "bili_dir": "bilirubin_direct",
    "bnd": "bands",
    "bun": "bun",
    "ca": "calcium_total",
    "cai": "calcium_ionized",
    "ck": "creatine_kinase",
    "ckmb": "ck_mb",
    "cl": "chloride",
    "crea": "creatinine",
    "crp": "crp",
    "dbp": "diastolic_bp",
    "fgn": "fibrinogen",
    "fio2": "fio2",
    "glu": "glucose",
    "hgb": "hemoglobin",
    "hr": "heart_rate",
    "inr_pt": "inr",
    "k": "potassium",
    "lact": "lactate",
    "lymph": "lymphocytes",
    "map": "mean_bp",
    "mch": "mch",
    "mchc": "mchc",
    "mcv": "mcv",
    "methb": "methemoglobin",
    "mg": "magnesium",
    "na": "sodium",
    "neut": "neutrophils",
    "o2sat": "spo2",
    "pco2": "paco2",
    "ph": "ph",
    "phos": "phosphate",
    "plt": "platelets",
    "po2": "pao2",
    "ptt": "ptt",
    "resp": "respiratory_rate",
    "sbp": "systolic_bp",
    "temp": "temperature",
    "tnt": "troponin_t",
    "urine": "urine_output",
    "wbc": "wbc",
}
"""YAIB's dynamic variables, by their names in ricu, and the catalogue's feature."""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def in_set(catalogue: Catalogue, name: str) -> set[str]:
    return set(catalogue.features.filter(pl.col("sets").str.split(" ").list.contains(name))["feature"])


def test_the_benchmark_variables_keep_their_keys(catalogue: Catalogue) -> None:
    assert in_set(catalogue, "harutyunyan") == BENCHMARK_17
    channels = catalogue.features.filter(pl.col("feature").is_in(list(BENCHMARK_17)))["benchmark"]
    assert channels.null_count() == 0
    assert channels.n_unique() == 17


def test_every_physionet_2012_series_has_a_code(catalogue: Catalogue) -> None:
    codes = catalogue.codes_of("p12")
    assert set(codes["code"]) - {"Height"} == P12_NAMES
    assert len(P12_NAMES) == 37


def test_every_variable_of_yaib_is_a_feature_with_codes(catalogue: Catalogue) -> None:
    assert len(YAIB_48) == len(set(YAIB_48.values())) == 48
    assert in_set(catalogue, "yaib") == set(YAIB_48.values())
    coded = catalogue.codes.filter(pl.col("system").is_in(["chart", "lab", "items"]))["feature"]
    assert set(YAIB_48.values()) <= set(coded)


def test_the_catalogue_is_the_union_of_the_three_sets_and_what_a_site_marked_as_its_own(
    catalogue: Catalogue,
) -> None:
    p12 = set(catalogue.codes_of("p12")["feature"])
    published = BENCHMARK_17 | p12 | set(YAIB_48.values())
    assert set(catalogue.features["feature"]) - in_set(catalogue, "site") == published
    assert in_set(catalogue, "p12") == p12
    assert catalogue.features["feature"].is_unique().all()
    loinc = set(catalogue.codes_of("loinc")["feature"])
    # The challenge's on-off flag of the ventilator has no LOINC code of its own.
    assert set(catalogue.features["feature"]) - loinc == {"mechanical_ventilation"}


@pytest.mark.parametrize("name", ["low", "high", "unit", "direction"])
def test_nothing_is_left_open(catalogue: Catalogue, name: str) -> None:
    assert catalogue.features[name].null_count() == 0


def test_normal_values_are_plausible(catalogue: Catalogue) -> None:
    assert catalogue.features.filter(~pl.col("normal").is_between("low", "high")).is_empty()


def test_loinc_check_digits(catalogue: Catalogue) -> None:
    for code in catalogue.codes_of("loinc")["code"]:
        number, _, digit = code.partition("-")
        assert re.fullmatch(r"\d+-\d", code)
        assert check_digit(number) == int(digit), code


def test_a_mistyped_loinc_code_fails_its_check_digit() -> None:
    assert check_digit("3150") == 0
    assert check_digit("3150") != 6  # the report's own first recollection, 3150-6


def test_item_labels_and_fluids_are_those_of_the_dictionaries(catalogue: Catalogue, data_dir: Path) -> None:
    labs = pl.read_csv(data_dir / "mimic-iv-demo/hosp/d_labitems.csv.gz").with_columns(
        pl.col("itemid").cast(pl.String)
    )
    items = pl.read_csv(data_dir / "mimic-iv-demo/icu/d_items.csv.gz").with_columns(
        pl.col("itemid").cast(pl.String)
    )
    lab = catalogue.codes_of("lab").join(labs, left_on="code", right_on="itemid", how="left")
    assert lab.filter(~pl.col("expected").eq_missing(pl.col("label"))).is_empty()
    assert set(lab["fluid_right"]) == {"Blood"}
    for alias, table in (("chart", "chartevents"), ("items", "outputevents")):
        found = catalogue.codes_of(alias).join(items, left_on="code", right_on="itemid", how="left")
        assert found.filter(~pl.col("expected").eq_missing(pl.col("label"))).is_empty()
        assert set(found["linksto"]) == {table}


def test_item_labels_are_those_of_the_fhir_code_systems(catalogue: Catalogue, data_dir: Path) -> None:
    folder = data_dir / "mimic-iv-demo-fhir" / "codesystems"
    for alias, name in (("chart", "chartevents-d-items"), ("items", "d-items"), ("lab", "d-labitems")):
        system = json.loads((folder / f"CodeSystem-mimic-{name}.json").read_text("utf-8"))
        assert system["url"] == catalogue.system_url(alias)
        display = {concept["code"]: concept.get("display") for concept in system["concept"]}
        codes = catalogue.codes_of(alias)
        differing = {
            code: (expected, display[code])
            for code, expected in zip(codes["code"], codes["expected"], strict=True)
            if code in display and display[code] != expected
        }
        assert not differing


def test_stated_units_of_chart_items_are_those_of_d_items(catalogue: Catalogue, data_dir: Path) -> None:
    items = pl.read_csv(data_dir / "mimic-iv-demo/icu/d_items.csv.gz").with_columns(
        pl.col("itemid").cast(pl.String)
    )
    proven = catalogue.codes.filter(pl.col("unit_source") == "d_items").join(
        items, left_on="code", right_on="itemid", how="left"
    )
    assert proven.height > 20
    assert proven.filter(~pl.col("unit").eq_missing(pl.col("unitname"))).is_empty()


def test_stated_units_of_laboratory_items_are_those_of_every_result(
    catalogue: Catalogue, data_dir: Path
) -> None:
    results = pl.read_csv(
        data_dir / "mimic-iv-demo/hosp/labevents.csv.gz",
        columns=["itemid", "valuenum", "valueuom"],
        schema_overrides={"itemid": pl.String, "valuenum": pl.Float64, "valueuom": pl.String},
    ).filter(pl.col("valuenum").is_not_null() & (pl.col("valueuom").str.strip_chars() != ""))
    stated = catalogue.codes.filter((pl.col("system") == "lab") & (pl.col("unit_source") == "valueuom"))
    seen = results.join(stated, left_on="itemid", right_on="code")
    assert seen["itemid"].n_unique() > 40
    odd = seen.filter(pl.col("unit") != pl.col("valueuom")).select("itemid", "unit", "valueuom").unique()
    # MCHC came in per cent before it came in g/dL: the same number.
    assert set(odd["itemid"]) <= {"51249"}


def test_stated_units_of_chart_items_are_those_of_every_value(catalogue: Catalogue, data_dir: Path) -> None:
    charted = pl.read_parquet(
        data_dir / "mimic-iv-demo/compact/chartevents_numeric.parquet", columns=["itemid", "valueuom"]
    ).select(pl.col("itemid").cast(pl.String), pl.col("valueuom").str.strip_chars())
    stated = catalogue.codes_of("chart").filter(pl.col("unit_source").is_in(["values", "d_items"]))
    seen = charted.join(stated, left_on="itemid", right_on="code").filter(pl.col("valueuom") != "")
    assert seen["itemid"].n_unique() > 60
    odd = seen.filter(pl.col("unit").str.to_lowercase() != pl.col("valueuom").str.to_lowercase())
    assert odd.is_empty(), odd.unique()


def test_values_of_chart_items_are_those_of_the_laboratory(catalogue: Catalogue, data_dir: Path) -> None:
    """An item of another fluid or unit would lie elsewhere: glucose of urine, lactate dehydrogenase."""

    def values(path: Path, alias: str) -> pl.DataFrame:
        wanted = catalogue.codes_of(alias).select("feature", itemid="code")
        read = pl.read_parquet if path.suffix == ".parquet" else pl.read_csv
        frame = read(path, columns=["itemid", "valuenum"]).drop_nulls()
        return frame.select(pl.col("itemid").cast(pl.String), pl.col("valuenum").cast(pl.Float64)).join(
            wanted, on="itemid"
        )

    number = pl.col("valuenum")
    laboratory = (
        values(data_dir / "mimic-iv-demo/hosp/labevents.csv.gz", "lab")
        .group_by("feature")
        .agg(number.quantile(0.05).alias("low"), number.quantile(0.95).alias("high"), pl.len().alias("n"))
        .filter(pl.col("n") >= 30)
    )
    charted = (
        values(data_dir / "mimic-iv-demo/compact/chartevents_numeric.parquet", "chart")
        .group_by("feature", "itemid")
        .agg(number.median(), pl.len().alias("charted"))
        .join(laboratory, on="feature")
        .filter(pl.col("charted") >= 10)
    )
    assert charted["itemid"].n_unique() >= 35
    # Where both are measured, the middle of one lies among the values of the other; a bedside saturation or
    # cholesterol of the critically ill may lie at the edge.
    outside = charted.filter(~number.is_between(pl.col("low") * 0.8, pl.col("high") * 1.2))
    assert outside.is_empty(), outside


@pytest.mark.parametrize(
    ("coding", "why"),
    [
        ("lab|51478", "glucose in urine"),
        ("lab|50841", "glucose in ascites or lactate dehydrogenase in ascites"),
        ("lab|50843", "lactate dehydrogenase in ascites"),
        ("lab|51491", "pH of urine"),
        ("lab|51094", "pH of urine"),
        ("lab|50831", "pH of body fluid"),
        ("chart|220734", "pH by dipstick"),
        ("chart|224688", "set respiratory rate"),
        ("loinc|3151-8", "oxygen flow, not its fraction"),
        ("items|227488", "irrigant, not urine"),
    ],
)
def test_known_traps_are_not_in_the_catalogue(catalogue: Catalogue, coding: str, why: str) -> None:
    alias, code = coding.split("|")
    assert catalogue.codes.filter(pl.col("coding") == f"{catalogue.system_url(alias)}|{code}").is_empty(), why


def test_the_digest_follows_the_content(tmp_path: Path, catalogue: Catalogue) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    assert load_catalogue(folder).digest == catalogue.digest
    text = (folder / "features.csv").read_text("utf-8")
    (folder / "features.csv").write_text(text.replace("0.21,1,0.21", "0.21,0.9,0.21"), "utf-8")
    assert load_catalogue(folder).digest != catalogue.digest


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("codes.csv", "heart_rate,loinc", "heart_beat,loinc", "codes of an unknown feature: heart_beat"),
        ("features.csv", "continuous,/min,rate", "continuous,/min,speed", "no unit of the family"),
        ("features.csv", "vital,Heart Rate", "sideways,Heart Rate", "unknown direction of: heart_rate"),
        ("codes.csv", ",bpm,", ",furlong,", "stated unit without conversion: 220045"),
        ("units.csv", "pressure,text,torr", "pressure,text,MMHG", "unit listed twice: mmhg"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    text = (folder / name).read_text("utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(CatalogueError, match=re.escape(message)):
        load_catalogue(folder)


def test_limits_are_what_the_rules_ask_for(catalogue: Catalogue) -> None:
    limits = catalogue.limits()
    assert limits.columns == ["code", "low", "high"]
    assert limits.height == catalogue.features.height
