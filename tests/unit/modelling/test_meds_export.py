"""The exported folder is a MEDS dataset by the judgement of the meds package itself."""

from __future__ import annotations

import json
from pathlib import Path

import meds
import polars as pl
import pytest
from mimic_ward import write_mimic
from pyarrow import parquet

from modelling.catalogue import load_catalogue
from modelling.cohorts.splits import read_splits, split_subjects
from modelling.errors import CohortError
from modelling.mapping.meds_export import write_meds
from modelling.mimic import map_mimic


def test_meds_accepts_the_dataset(tmp_path: Path) -> None:
    folder, out = tmp_path / "tables", tmp_path / "meds"
    catalogue = load_catalogue()
    map_mimic(mimic=write_mimic(tmp_path / "mimic"), out=folder, catalogue=catalogue, n_shards=2)
    counts = write_meds(folder, out, catalogue=catalogue)
    files = sorted((out / meds.data_subdirectory).glob("*.parquet"))
    assert counts["files"] == len(files) == 2
    for path in files:
        meds.DataSchema.validate(parquet.read_table(path))
    meds.SubjectSplitSchema.validate(parquet.read_table(out / meds.subject_splits_filepath))
    meds.CodeMetadataSchema.validate(parquet.read_table(out / meds.code_metadata_filepath))
    meds.DatasetMetadataSchema.validate(json.loads((out / meds.dataset_metadata_filepath).read_text("utf-8")))
    shards = [pl.read_parquet(path) for path in files]
    data = pl.concat(shards)
    assert data.height == counts["events"]
    for shard in shards:
        assert shard.equals(shard.sort("subject_id", "time", maintain_order=True))
    assert not set(shards[0]["subject_id"]) & set(shards[1]["subject_id"])
    described = pl.read_parquet(out / meds.code_metadata_filepath)
    assert set(data["code"]) <= set(described["code"])
    assert data.filter(pl.col("code") == meds.death_code)["subject_id"].to_list() == [10]
    splits = pl.read_parquet(out / meds.subject_splits_filepath)
    assert set(splits["subject_id"]) == {10, 20}


def test_splits_stay_when_patients_are_added() -> None:
    few, many = split_subjects(range(100)), split_subjects(range(2000))
    assert many.filter(pl.col("subject_id") < 100).equals(few)
    shares = many["split"].value_counts(normalize=True)
    assert dict(shares.iter_rows())["train"] == pytest.approx(0.7, abs=0.03)
    assert not split_subjects(range(2000), seed=1).equals(many)


def test_published_splits_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("subject_id,split\n2,test\n1,train\n3,val\n1,train\n", "utf-8")
    assert read_splits(path)["split"].to_list() == ["train", "held_out", "tuning"]
    path.write_text("subject_id,split\n1,train\n1,test\n", "utf-8")
    with pytest.raises(CohortError, match=r"splits\.csv: a patient is in two splits"):
        read_splits(path)
    path.write_text("subject_id,split\n1,left\n", "utf-8")
    with pytest.raises(CohortError, match="a split is none of"):
        read_splits(path)
    path.write_text("subject_id,fold\n1,train\n", "utf-8")
    with pytest.raises(CohortError, match="column split is missing"):
        read_splits(path)
    with pytest.raises(CohortError, match="shares"):
        split_subjects([1], fractions={"train": 0.5})
