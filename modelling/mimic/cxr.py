"""MIMIC-CXR and MIMIC-CXR-JPG 2.x (doi 10.13026/8360-t248) to images and CheXpert labels.

The metadata table of MIMIC-CXR-JPG gives views and times; pictures lie below ``files/`` as ``.jpg`` or, in
MIMIC-CXR, as ``.dcm`` (copy the metadata table beside them: the DICOM distribution has none). A radiograph is
known from the time at which it was taken.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from modelling.errors import SourceTableError
from modelling.mapping.arrays import store_array
from modelling.mapping.folder import Progress, TableFolder
from modelling.mimic.archives import ReadPicture, enclosing_encounters, map_archive
from modelling.mimic.clock import to_utc
from modelling.mimic.files import Schema, read_table
from validation.image_quality import judge_images
from validation.reasons import Reason

DATASET = "MIMIC-CXR-JPG"
METADATA: Schema = {
    "dicom_id": pl.String,
    "subject_id": pl.Int64,
    "study_id": pl.Int64,
    "ViewPosition": pl.String,
    "StudyDate": pl.String,
    "StudyTime": pl.String,
}
CHEXPERT_LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
    "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
    "Pneumothorax", "Support Devices",
)  # fmt: skip
"""The 14 labels of CheXpert (Irvin et al. 2019)."""
CHEXPERT: Schema = {
    "subject_id": pl.Int64,
    "study_id": pl.Int64,
    **dict.fromkeys(CHEXPERT_LABELS, pl.Float64),
}
MENTIONS = {1.0: "positive", 0.0: "negative", -1.0: "uncertain"}
FRONTAL = ("AP", "PA")


def table_name(root: Path, kind: str) -> str:
    """Return the name of ``mimic-cxr-<version>-<kind>`` without suffix; the newest version of several.

    Raises
    ------
    SourceTableError
        If there is none.
    """
    found = sorted(root.glob(f"mimic-cxr-*-{kind}.csv*"))
    if not found:
        raise SourceTableError(
            f"mimic-cxr-2.0.0-{kind}.csv.gz is missing in {root}; copy it from {DATASET} into this folder"
        )
    return found[-1].name.partition(".csv")[0]


def study_time(date: pl.Expr, time: pl.Expr) -> pl.Expr:
    """Return DICOM date and time columns in UTC; null where they cannot be read.

    The table holds both as numbers, so that 00:30:14.5 stands as ``3014.5``.
    """
    clock = time.str.split_exact(".", 1).struct[0].str.zfill(6)
    wall = pl.concat_str(date.str.slice(0, 8), clock)
    return to_utc(wall.str.to_datetime("%Y%m%d%H%M%S", strict=False, time_unit="us"))


def read_metadata(root: Path, encounters: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the pictures of the encounters' patients, and the number of pictures of other patients.

    Lateral views stay, with the reason for which they are refused.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    listed = read_table(root, table_name(root, "metadata"), METADATA, dataset=DATASET)
    view = pl.col("ViewPosition").str.strip_chars().str.to_uppercase().replace("", None)
    mine = (
        listed.join(encounters.select("subject_id").unique(), on="subject_id", how="semi")
        .with_columns(
            study_time(pl.col("StudyDate"), pl.col("StudyTime")).alias("time"),
            view.alias("view"),
            pl.format("metadata:{}", "dicom_id").alias("source_ref"),
        )
        .with_columns(
            pl.when(pl.col("time").is_null())
            .then(pl.lit(str(Reason.TIME_INVALID)))
            .when(~pl.col("view").is_in(FRONTAL))
            .then(pl.lit(str(Reason.IMAGE_VIEW_NOT_FRONTAL)))
            .when(pl.col("dicom_id").is_duplicated())
            .then(pl.lit(str(Reason.IMAGE_DUPLICATE)))
            .alias("refused")
        )
    )
    return enclosing_encounters(mine, encounters), listed.height - mine.height


def read_chexpert(root: Path, encounters: pl.DataFrame) -> pl.DataFrame:
    """Return CheXpert's labels: ``subject_id``, ``study_uid``, ``label``, ``mention``.

    ``mention`` is positive, negative or uncertain; a label that the report does not mention has no row. The
    labels are made from the radiologist's report, which is later than the picture: targets, never inputs.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    table = read_table(root, table_name(root, "chexpert"), CHEXPERT, dataset=DATASET)
    mine = table.join(encounters.select("subject_id").unique(), on="subject_id", how="semi")
    return (
        mine.select("subject_id", pl.col("study_id").cast(pl.String).alias("study_uid"), *CHEXPERT_LABELS)
        .unpivot(index=["subject_id", "study_uid"], variable_name="label", value_name="number")
        .with_columns(
            pl.col("number").replace_strict(MENTIONS, default=None, return_dtype=pl.String).alias("mention")
        )
        .drop_nulls("mention")
        .select("subject_id", "study_uid", "label", "mention")
        .sort("subject_id", "study_uid", "label")
    )


def map_cxr(
    cxr: Path,
    folder: TableFolder,
    encounters: pl.DataFrame,
    *,
    read_picture: ReadPicture,
    progress: Progress,
) -> dict[str, int]:
    """Write ``images/`` and ``image_labels.parquet`` of a table folder; return what the list had beside.

    Parameters
    ----------
    cxr
        Folder of MIMIC-CXR-JPG, or of MIMIC-CXR with the tables of MIMIC-CXR-JPG.
    encounters
        Whose pictures are read, and in which stay each lies.
    read_picture
        Decoder of a JPEG or DICOM file.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    rows, others = read_metadata(cxr, encounters)
    labels = read_chexpert(cxr, encounters)
    folder.begin("images", {"pictures": rows.height + others})
    labels.write_parquet(folder.root / "image_labels.parquet")
    map_archive(
        folder,
        "images",
        rows,
        read=partial(_image, cxr=cxr, root=folder.root, read_picture=read_picture),
        judge=judge_images,
        source_file=f"{table_name(cxr, 'metadata')}.csv",
        progress=progress,
    )
    return {"images_of_other_patients": others, "image_labels": labels.height}


def picture_path(cxr: Path, subject: int, study: int, dicom: str) -> str:
    """Return a picture's path below ``cxr``: the JPEG, or the DICOM file where there is no JPEG."""
    stem = f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom}"
    return f"{stem}.jpg" if (cxr / f"{stem}.jpg").is_file() else f"{stem}.dcm"


def _image(row: dict[str, Any], *, cxr: Path, root: Path, read_picture: ReadPicture) -> dict[str, Any]:
    path = picture_path(cxr, row["subject_id"], row["study_id"], row["dicom_id"])
    picture = read_picture(cxr, path)
    array_path, digest = store_array(picture.pixels, root)
    study = str(row["study_id"])
    return {
        "image_id": row["source_ref"],
        "subject_id": row["subject_id"],
        "encounter_id": row["encounter_id"],
        "time": row["time"],
        "available_time": row["time"],
        "view": row["view"] or picture.view,
        "height_px": picture.pixels.shape[0],
        "width_px": picture.pixels.shape[1],
        "pixel_spacing": picture.pixel_spacing,
        "array_path": array_path,
        "array_sha256": digest,
        "study_uid": study,
        "series_uid": study,
        "instance_uid": row["dicom_id"],
        "source_ref": row["source_ref"],
    }
