"""The row-by-row kind of mapping, a yardstick of ``make bench-map``.

Own code for the steps of the three scripts with which the benchmark of Harutyunyan et al. (Scientific Data 6:96,
2019) turns chartevents into series (``extract_subjects``, ``validate_events``,
``extract_episodes_from_subjects``), for its 17 variables:

1. every row of the table, as a dict, into a CSV file of its subject;
2. subject by subject, the rows joined with the stays and written again;
3. subject by subject, items to variables, values cleaned by a function a variable (element by element, as
   there), one row a time, one CSV file a stay.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

KEPT = ("subject_id", "hadm_id", "stay_id", "charttime", "itemid", "value", "valueuom")
NUMBER = re.compile(r"^(\d+(\.\d*)?|\.\d+)$")


def break_up_stays(icustays: Path, out: Path) -> None:
    """Write each subject's stays to a folder of its own."""
    stays = pd.read_csv(icustays)
    for subject, rows in stays.groupby("subject_id"):
        folder = out / str(subject)
        folder.mkdir(parents=True, exist_ok=True)
        rows.sort_values("intime").to_csv(folder / "stays.csv", index=False)


def break_up_events(path: Path, out: Path) -> None:
    """Copy every row of a known subject, as a dict, to a CSV file of its subject."""
    subjects = {folder.name for folder in out.iterdir()}
    waiting: list[dict[str, str]] = []

    def write() -> None:
        target = out / waiting[0]["subject_id"] / "events.csv"
        if not target.is_file():
            target.write_text(",".join(KEPT) + "\n", "utf-8")
        with target.open("a", newline="") as opened:
            csv.DictWriter(opened, fieldnames=KEPT, quoting=csv.QUOTE_MINIMAL).writerows(waiting)

    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            if row["subject_id"] not in subjects:
                continue
            if waiting and waiting[-1]["subject_id"] != row["subject_id"]:
                write()
                waiting = []
            waiting.append({name: row[name] for name in KEPT})
    if waiting:
        write()


def validate_events(folder: Path) -> None:
    """Keep events of admissions and stays that are known; fill in the stay where only the admission is told."""
    texts = {"hadm_id": str, "stay_id": str}
    stays = pd.read_csv(folder / "stays.csv", dtype=texts)
    events = pd.read_csv(folder / "events.csv", dtype=texts).dropna(subset=["hadm_id"])
    joined = events.merge(stays, on="hadm_id", how="left", suffixes=("", "_r"), indicator=True)
    joined = joined[joined["_merge"] == "both"]
    joined["stay_id"] = joined["stay_id"].fillna(joined["stay_id_r"])
    joined = joined.dropna(subset=["stay_id"])
    joined = joined[joined["stay_id"] == joined["stay_id_r"]]
    joined[list(KEPT)].to_csv(folder / "events.csv", index=False)


def _floats(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce")


def _part(number: int) -> Callable[[pd.DataFrame], pd.Series]:
    """Return a cleaner for pressures, some of which are charted as ``120/80``."""

    def clean(rows: pd.DataFrame) -> pd.Series:
        values = rows["value"].astype(str)
        both = values.apply(lambda text: "/" in text)
        values[both] = values[both].apply(lambda text: text.split("/")[number])
        return _floats(values)

    return clean


def _refill(rows: pd.DataFrame) -> pd.Series:
    clean = pd.Series(np.nan, index=rows.index)
    clean[rows["value"].isin(["Normal <3 secs", "Brisk"])] = 0
    clean[rows["value"].isin(["Abnormal >3 secs", "Delayed"])] = 1
    return clean


def _without_errors(rows: pd.DataFrame) -> pd.Series:
    values = rows["value"].copy()
    wrong = values.apply(lambda text: isinstance(text, str) and not NUMBER.match(text))
    values[wrong] = np.nan
    return _floats(values)


def _oxygen(rows: pd.DataFrame) -> pd.Series:
    values = _without_errors(rows)
    return values.where(values > 1, values * 100)


def _inspired(rows: pd.DataFrame) -> pd.Series:
    values = _floats(rows["value"])
    percent = rows["valueuom"].apply(lambda unit: "torr" not in unit.lower()) & (values > 1)
    return values.where(~percent, values / 100)


def _labelled(rows: pd.DataFrame, sign: str) -> pd.Series:
    unit = rows["valueuom"].apply(lambda text: sign in text.lower())
    return unit | rows["label"].apply(lambda text: sign in text.lower())


def _temperature(rows: pd.DataFrame) -> pd.Series:
    values = _floats(rows["value"])
    fahrenheit = _labelled(rows, "f") | (values >= 79)
    return values.where(~fahrenheit, (values - 32) * 5 / 9)


def _weight(rows: pd.DataFrame) -> pd.Series:
    values = _floats(rows["value"])
    ounces = _labelled(rows, "oz")
    values = values.where(~ounces, values / 16)
    return values.where(~(ounces | _labelled(rows, "lb")), values * 0.453592)


def _height(rows: pd.DataFrame) -> pd.Series:
    values = _floats(rows["value"])
    return values.where(~_labelled(rows, "in"), (values * 2.54).round())


CLEANERS = {
    "Capillary refill rate": _refill,
    "Diastolic blood pressure": _part(1),
    "Systolic blood pressure": _part(0),
    "Fraction inspired oxygen": _inspired,
    "Oxygen saturation": _oxygen,
    "Glucose": _without_errors,
    "pH": _without_errors,
    "Temperature": _temperature,
    "Weight": _weight,
    "Height": _height,
}


def clean_events(events: pd.DataFrame) -> pd.DataFrame:
    """Return events with numbers for values, those without number left out."""
    numbers = _floats(events["value"])
    for variable, clean in CLEANERS.items():
        rows = events["variable"] == variable
        if rows.any():
            numbers[rows] = clean(events[rows])
    return events.assign(value=numbers)[numbers.notna()]


def to_series(events: pd.DataFrame) -> pd.DataFrame:
    """Return one row a time, one column a variable; of several values at one time the largest."""
    stays = events[["charttime", "stay_id"]].sort_values(["charttime", "stay_id"]).drop_duplicates()
    values = events[["charttime", "variable", "value"]].sort_values(["charttime", "variable", "value"])
    values = values.drop_duplicates(["charttime", "variable"], keep="last")
    table = values.pivot(index="charttime", columns="variable", values="value")
    return (
        table.merge(stays.set_index("charttime"), left_index=True, right_index=True)
        .sort_index()
        .reset_index()
    )


def write_episodes(folder: Path, variables: pd.DataFrame) -> int:
    """Write one series a stay; return the number of values written."""
    stays = pd.read_csv(folder / "stays.csv", parse_dates=["intime", "outtime"])
    events = pd.read_csv(folder / "events.csv", dtype={"value": str})
    events = events[events["value"].notna()]
    events["charttime"] = pd.to_datetime(events["charttime"])
    events["valueuom"] = events["valueuom"].fillna("").astype(str)
    events = clean_events(events.merge(variables, left_on="itemid", right_index=True))
    if events.empty:
        return 0
    series = to_series(events)
    written = 0
    for number, stay in enumerate(stays.itertuples(), start=1):
        inside = (series["charttime"] >= stay.intime) & (series["charttime"] <= stay.outtime)
        episode = series[(series["stay_id"] == stay.stay_id) | inside].drop(columns="stay_id")
        if episode.empty:
            continue
        elapsed = (episode["charttime"] - stay.intime).apply(lambda time: time / np.timedelta64(1, "s"))
        episode = (
            episode.assign(hours=elapsed / 3600).drop(columns="charttime").set_index("hours").sort_index()
        )
        episode[sorted(episode.columns)].to_csv(
            folder / f"episode{number}_timeseries.csv", index_label="Hours"
        )
        written += int(episode.notna().sum().sum())
    return written


def map_row_by_row(path: Path, icustays: Path, variables: pd.DataFrame, out: Path) -> int:
    """Run the three steps; return the number of values in the series.

    Parameters
    ----------
    variables
        ``variable`` and ``label`` by item id.
    """
    out.mkdir(parents=True, exist_ok=True)
    break_up_stays(icustays, out)
    break_up_events(path, out)
    folders = sorted(folder for folder in out.iterdir() if (folder / "events.csv").is_file())
    for folder in folders:
        validate_events(folder)
    return sum(write_episodes(folder, variables) for folder in folders)
