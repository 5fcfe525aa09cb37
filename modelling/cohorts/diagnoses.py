"""Groups of discharge diagnoses: the 25 phenotypes of Harutyunyan et al. 2019, and cardiovascular disease.

``phenotypes.csv`` lists code prefixes without dot; one that ends in ``$`` is a whole code. Its ICD-9-CM side is
the single-level Clinical Classifications Software of the AHRQ (HCUP, 2015; public domain) cut to prefixes;
the ICD-10-CM side names the categories of the same meaning, since half of MIMIC-IV's admissions are coded in
ICD-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import polars as pl

PHENOTYPES = Path(__file__).with_name("phenotypes.csv")

CARDIOVASCULAR: Mapping[str, tuple[str, str]] = {
    "chd": ("410 411 412 413 414", "I20 I21 I22 I23 I24 I25"),
    "stroke": ("430 431 432 433 434 436", "I60 I61 I62 I63 I65 I66"),
    "heart_failure": (
        "39891 40201 40211 40291 40401 40403 40411 40413 40491 40493 428",
        "I0981 I110 I130 I132 I50",
    ),
}
"""Prefixes (ICD-9-CM, ICD-10-CM) of MedM2T's three groups: coronary heart disease, stroke, heart failure."""


@lru_cache(maxsize=1)
def phenotype_table() -> pl.DataFrame:
    """Return ``phenotype``, ``title``, ``kind`` (acute, chronic, mixed), ``ccs``, ``icd9``, ``icd10``."""
    return pl.read_csv(PHENOTYPES, schema_overrides={"icd9": pl.String, "icd10": pl.String})


def prefixes(table: Mapping[str, tuple[str, str]]) -> pl.DataFrame:
    """Return groups of prefixes as ``group``, ``icd_version``, ``prefix``."""
    rows = [
        (group, version, prefix)
        for group, both in table.items()
        for version, text in zip((9, 10), both, strict=True)
        for prefix in text.split()
    ]
    schema = {"group": pl.String, "icd_version": pl.Int8, "prefix": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def phenotype_prefixes() -> pl.DataFrame:
    """Return the phenotypes' prefixes as ``group``, ``icd_version``, ``prefix``."""
    table = phenotype_table()
    both = {row["phenotype"]: (row["icd9"], row["icd10"]) for row in table.iter_rows(named=True)}
    return prefixes(both)


OPERATIONS: Mapping[str, tuple[str, str]] = {
    "chd": (
        "0066 3603 3604 3606 3607 3609 361",
        "0210 0211 0212 0213 0270 0271 0272 0273 02C0 02C1 02C2 02C3",
    ),
    "stroke": (
        "0061 0062 0063 0064 0065 3812 3972 3974 3975 3976",
        "037G 037H 037J 037K 037L 037M 037N 037P 037Q 03CG 03CH 03CJ 03CK 03CL 03CM 03CN 03CP 03CQ 03LG 03VG",
    ),
    "heart_failure": (
        "0050 0051 3751 3752 3760 3762 3765 3766 3768",
        "02HA0Q 02HA0R 02HA3Q 02HA3R 02HA4Q 02HA4R 02RK0J 02RL0J 02YA 5A02116 5A0211D 5A02216 5A0221D",
    ),
}
"""Prefixes (ICD-9-CM volume 3, ICD-10-PCS) of operations on the three: coronary revascularisation; opening,
stenting and coiling of the vessels of head and neck; pacing against dyssynchrony, assist devices, transplant.
MedM2T names its own list in a picture only (supplement, table A1), so this one is ours."""


def grouped(diagnoses: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Return which groups each admission's diagnoses, or coded procedures, fall into.

    Parameters
    ----------
    diagnoses
        ``subject_id``, ``encounter_id``, ``icd_version``, ``icd_code`` (without dot), ``position``.
    groups
        ``group``, ``icd_version``, ``prefix``.

    Returns
    -------
    polars.DataFrame
        ``subject_id``, ``encounter_id``, ``group``, ``position`` (of the first code of the group).
    """
    codes = diagnoses.select("icd_version", "icd_code").unique()
    matched = (
        codes.with_columns(pl.col("icd_code").str.to_uppercase().str.replace_all(r"[.\s]", "").alias("plain"))
        .with_columns(
            pl.concat_list(
                *(pl.col("plain").str.slice(0, length) for length in range(3, 8)), pl.col("plain") + "$"
            )
            .list.unique()
            .alias("prefix")
        )
        .explode("prefix", empty_as_null=False)
        .join(groups, on=["icd_version", "prefix"])
        .select("icd_version", "icd_code", "group")
        .unique()
    )
    return (
        diagnoses.join(matched, on=["icd_version", "icd_code"])
        .group_by("subject_id", "encounter_id", "group")
        .agg(pl.col("position").min())
        .sort("subject_id", "encounter_id", "group")
    )
