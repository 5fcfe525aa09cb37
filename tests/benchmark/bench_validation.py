# ruff: noqa: E501 - printed tables read better whole
"""Validation, measured: speed beside Great Expectations on rows, false alarms on real signals, faults found.

Run by ``make bench-validation``; options: ``--events N`` (10,000,000), ``--only speed|signals|faults``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

PROJECT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))


def make_events(rows: int, seed: int = 0) -> pl.DataFrame:
    """Return a sorted events table, 0.2 % of it out of range, as a large hospital's month would be."""
    from modelling.catalogue import load_catalogue

    features = load_catalogue().features.sort("feature")
    rng = np.random.default_rng(seed)
    weight = np.where(features["direction"] == "vital", 8.0, 1.0)
    feature = rng.choice(features.height, rows, p=weight / weight.sum()).astype(np.uint32)
    low, high, normal = (features[name].to_numpy() for name in ("low", "high", "normal"))
    value = np.clip(normal[feature] * rng.normal(1, 0.08, rows), low[feature], high[feature])
    wrong = rng.random(rows) < 0.002
    value[wrong] = 3 * high[feature[wrong]] + 1
    start = np.datetime64("2026-01-01", "us").astype(np.int64)
    minutes = rng.integers(0, 14 * 24 * 4, rows) * 15
    frame = pl.DataFrame(
        {
            "subject_id": rng.integers(1, max(2, rows // 400), rows),
            "time": start + minutes * 60_000_000,
            "feature": feature,
            "numeric_value": value.astype(np.float32),
        }
    ).sort("subject_id", "time", "feature")
    when = pl.col("time").cast(pl.Datetime("us", "UTC"))
    return frame.select(
        "subject_id",
        when.alias("time"),
        features["feature"].gather(frame["feature"]).alias("code"),
        "numeric_value",
        pl.lit(None, pl.String).alias("text_value"),
        (when + pl.duration(minutes=20)).alias("available_time"),
        pl.format("e{}", "subject_id").alias("encounter_id"),
        pl.format("Observation/{}", pl.int_range(pl.len())).alias("source_ref"),
        pl.lit(False).alias("derived"),
    )


def stays(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return encounters and samples for the subjects of an events table."""
    from validation.contracts import empty

    subjects = events.group_by("subject_id", "encounter_id").agg(pl.col("time").min().alias("start"))
    encounters = subjects.select(
        "encounter_id", "subject_id", "start", pl.format("ward {}", pl.col("subject_id") % 20).alias("ward")
    )
    end = events["time"].max()
    samples = subjects.select(
        "subject_id",
        pl.lit(end).alias("prediction_time"),
        "encounter_id",
        pl.lit("benchmark").alias("task"),
        (pl.lit(end) - pl.duration(hours=48)).alias("lookback_start"),
    )
    return (
        pl.concat([empty("encounters"), encounters], how="diagonal_relaxed"),
        pl.concat([empty("samples"), samples], how="diagonal_relaxed"),
    )


def timed(what: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return a result with its wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = what()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def peak_gib() -> float:
    """Return this process's largest resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_ours(path: Path, work: Path) -> dict[str, Any]:
    """Rules, profile and gate, as the night does them."""
    from modelling.catalogue import load_catalogue

    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    from validation.contracts import empty
    from validation.equations import Counts
    from validation.gate import decide
    from validation.profiles import profile_night
    from validation.rules import judge_events

    events = pl.read_parquet(path)
    encounters, samples = stays(events)
    limits = load_catalogue().limits()
    judge_events(events.head(10_000), limits)
    loaded = peak_gib()
    judgement, judge_wall, judge_cpu = timed(lambda: judge_events(events, limits))
    again = min(timed(lambda: judge_events(events, limits))[1:] for _ in range(3))
    counts = Counts(
        pulled=events.height,
        accepted=judgement.accepted.height,
        quarantined=judgement.quarantine.height,
        eligible=samples.height,
    )
    profiles, profile_wall, profile_cpu = timed(
        lambda: profile_night(
            events=judgement.accepted,
            encounters=encounters,
            samples=samples,
            quarantine=judgement.quarantine,
            recordings=empty("recordings"),
            images=empty("images"),
            counts=counts,
        )
    )
    _, import_wall, import_cpu = timed(lambda: __import__("great_expectations"))
    decision, gate_wall, gate_cpu = timed(lambda: decide(profiles, work_folder=work))
    return {
        "rules": (judge_wall, judge_cpu),
        "again": again,
        "profile": (profile_wall, profile_cpu),
        "import": (import_wall, import_cpu),
        "gate": (gate_wall, gate_cpu),
        "loaded": loaded,
        "peak": peak_gib(),
        "found": judgement.counts,
        "decision": decision.decision,
    }


def run_great_expectations(path: Path, *, per_feature: bool) -> dict[str, Any]:
    """Row checks by Great Expectations through pandas, without cross-feature physiology, which it lacks.

    ``per_feature`` gives what the gate needs: a verdict a feature (range by row condition). Without it, each
    feature's limits are joined as columns beforehand and one verdict is given for all features together.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    from modelling.catalogue import load_catalogue

    limits = load_catalogue().limits()
    events = pl.read_parquet(path)
    loaded = peak_gib()
    gx, import_wall, import_cpu = timed(lambda: __import__("great_expectations"))
    gxe = __import__("great_expectations.expectations", fromlist=["expectations"])

    def check() -> dict[str, int]:
        frame = events if per_feature else events.join(limits, on="code", how="left", maintain_order="left")
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        batch = (
            context.data_sources.add_pandas("p")
            .add_dataframe_asset("a")
            .add_batch_definition_whole_dataframe("b")
        )
        expectations = [
            gxe.ExpectColumnValuesToNotBeNull(column="subject_id"),
            gxe.ExpectColumnValuesToNotBeNull(column="numeric_value"),
            gxe.ExpectColumnValuesToBeInSet(column="code", value_set=limits["code"].to_list()),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="available_time", column_B="time", or_equal=True
            ),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["subject_id", "time", "code", "numeric_value"]),
        ]
        if per_feature:
            expectations += [
                gxe.ExpectColumnValuesToBeBetween(
                    column="numeric_value",
                    min_value=row["low"],
                    max_value=row["high"],
                    row_condition=f'code == "{row["code"]}"',
                    condition_parser="pandas",
                )
                for row in limits.iter_rows(named=True)
            ]
        else:
            pairs = (("high", "numeric_value"), ("numeric_value", "low"))
            expectations += [
                gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=above, column_B=below, or_equal=True)
                for above, below in pairs
            ]
        suite = context.suites.add(gx.ExpectationSuite(name="s", expectations=expectations))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name="v", data=batch, suite=suite)
        )
        outcome = definition.run(batch_parameters={"dataframe": frame.to_pandas()}, result_format="BASIC")
        found: Counter[str] = Counter()
        for result in outcome.results:
            if not result.success:
                found[result.expectation_config.type] += result.result.get("unexpected_count", 0)
        return dict(found)

    found, wall, cpu = timed(check)
    return {
        "import": (import_wall, import_cpu),
        "rows through pandas": (wall, cpu),
        "loaded": loaded,
        "peak": peak_gib(),
        "found": found,
    }


PARTS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "ours": (
        "polars rules, profile, Great Expectations on the profile",
        lambda path: run_ours(path, path.parent / "gate"),
    ),
    "features": (
        "Great Expectations on rows, a verdict a feature",
        lambda path: run_great_expectations(path, per_feature=True),
    ),
    "lean": (
        "Great Expectations on rows, one verdict for all features",
        lambda path: run_great_expectations(path, per_feature=False),
    ),
}


def bench_speed(rows: int) -> None:
    """Print both ways side by side; each runs in a process of its own, so that memory can be told."""
    with tempfile.TemporaryDirectory(prefix="bench-validation-") as folder:
        path = Path(folder) / "events.parquet"
        make_events(rows).write_parquet(path)
        load = os.getloadavg()[0]
        print(f"\n{rows:,} events, {os.cpu_count()} cores, load average at start {load:.1f}")
        totals = {}
        for part, (title, _) in PARTS.items():
            answer = Path(folder) / f"{part}.json"
            command = [sys.executable, __file__, "--part", part, "--path", str(path), "--answer", str(answer)]
            subprocess.run(command, check=True)
            result = json.loads(answer.read_text())
            again = result.pop("again", None)
            steps = {name: pair for name, pair in result.items() if isinstance(pair, list)}
            work = [pair for name, pair in steps.items() if name != "import"]
            totals[part] = tuple(map(sum, zip(*work, strict=True)))
            print(f"  {title}")
            for name, (wall, cpu) in steps.items():
                rate = "" if name == "import" else f"{rows / wall / 1e6:8.2f} M rows/s"
                print(f"    {name:22} {wall:8.2f} s wall {cpu:8.2f} s processor  {rate}")
            if again:
                print(
                    f"    rules, best of three more: {again[0]:.2f} s wall, {rows / again[0] / 1e6:.1f} M rows/s"
                )
            print(
                f"    peak memory {result['peak']:.2f} GiB (events loaded: {result['loaded']:.2f} GiB); found {result['found']}"
            )
            if part == "ours":
                rules = steps["rules"]
        lean = totals["lean"]
        print(
            f"  row checks alone, {rules[0]:.1f} s against {lean[0]:.1f} s (Great Expectations on rows, one verdict): "
            f"{lean[0] / rules[0]:.1f} times faster, {lean[1] / rules[1]:.1f} times less processor time"
        )
        for part in ("features", "lean"):
            wall, cpu = (totals[part][kind] / totals["ours"][kind] for kind in (0, 1))
            print(
                f"  without import, {totals['ours'][0]:.1f} s against {totals[part][0]:.1f} s "
                f"({PARTS[part][0]}): {wall:.1f} times faster, {cpu:.1f} times less processor time"
            )


def bench_signals() -> None:
    """Print false alarms on PTB-XL and ChestX-ray14, and how many planted signal faults are found there."""
    import wfdb
    from PIL import Image

    from validation import ecg_quality, image_quality

    if not DATA.is_dir():
        print(f"\nno open data at {DATA}: signals not measured")
        return
    ecgs: Counter[tuple[str, str]] = Counter()
    rng = np.random.default_rng(0)
    spoil: dict[str, Callable[[Any, float], Any]] = {
        "as recorded": lambda x, _: x,
        "three leads flat": lambda x, _: np.where(np.isin(np.arange(12), [3, 7, 9])[:, None], 0.0, x),
        "recorder limits": lambda x, _: np.clip(x, -0.05, 0.08),
        "microvolts as mV": lambda x, _: 1000 * x,
        "3 mV wander at 0.2 Hz": lambda x, f: x + 3 * np.sin(2 * np.pi * 0.2 * np.arange(x.shape[1]) / f),
        "white noise of 0.5 mV": lambda x, _: x + rng.normal(0, 0.5, x.shape),
        "noise without ECG": lambda x, _: rng.normal(0, 0.3, x.shape),
    }
    for folder in ("records100", "records500"):
        for header in sorted((DATA / "ptbxl" / folder).rglob("*.hea")):
            samples, fields = wfdb.rdsamp(str(header.with_suffix("")))
            for name, change in spoil.items():
                changed = np.asarray(change(samples.T, fields["fs"]), dtype=np.float32)
                limits = ecg_quality.ECGLimits()
                measures = ecg_quality.measure_recording(
                    changed, leads=fields["sig_name"], sampling_rate=fields["fs"], limits=limits
                )
                ecgs[name, str(ecg_quality.judge_measures(measures, limits) or "accepted")] += 1
    _print_verdicts("PTB-XL excerpt, all records at 100 and 500 Hz", ecgs)
    images: Counter[tuple[str, str]] = Counter()
    shapes: dict[str, Callable[[Any], Any]] = {
        "as published": lambda x: x,
        "inverted": lambda x: 255 - x,
        "upside down": lambda x: x[::-1],
        "on its side": lambda x: np.rot90(x),
        "16 grey levels": lambda x: x // 16 + 100,
        "64 pixels": lambda x: x[::8, ::8],
    }
    with (DATA / "nih-cxr14" / "labels.csv").open(encoding="utf-8") as file:
        names = [Path(row["Image Index"]).stem for row in csv.DictReader(file)]
    coarse = []
    for stem in names:
        pixels = np.asarray(Image.open(DATA / "nih-cxr14" / "images" / f"{stem}.jpg").convert("L"))
        coarse.append(image_quality._coarse(pixels))
        for name, change in shapes.items():
            measures = image_quality.measure_image(np.ascontiguousarray(change(pixels)).astype(np.uint8))
            images[
                name, str(image_quality.judge_measures(measures, image_quality.ImageLimits()) or "accepted")
            ] += 1
    _print_verdicts("NIH ChestX-ray14 excerpt", images)
    mean = np.mean(coarse, axis=0)
    mean = (mean + mean[:, ::-1]) / 2
    gap = np.abs(mean[:, :4] - image_quality.CHEST_TEMPLATE).max()
    print(f"  chest template computed again: largest difference {gap:.3f}")


def _print_verdicts(title: str, verdicts: Counter[tuple[str, str]]) -> None:
    print(f"\n{title}")
    for name in dict.fromkeys(name for name, _ in verdicts):
        found = {reason: n for (kind, reason), n in verdicts.items() if kind == name}
        total = sum(found.values())
        refused = total - found.get("accepted", 0)
        print(
            f"  {name:24} refused {refused:4} of {total:4} ({100 * refused / total:5.1f} %)  {dict(sorted(found.items(), key=lambda item: -item[1]))}"
        )


def read_hospital(hospital: Path, run: Path) -> dict[tuple[str, int], set[str]]:
    """Return the reasons found at each file and line of a demo hospital, over all stages of a night."""
    from fhir_adapter.census import read_census
    from fhir_adapter.extract import extract_part
    from fhir_adapter.images.archive import FolderArchive
    from fhir_adapter.sources.folder import FolderSource
    from modelling.catalogue import load_catalogue
    from modelling.mapping import map_observations
    from validation.ecg_quality import judge_recordings
    from validation.image_quality import judge_images
    from validation.rules import judge_events

    source = FolderSource(hospital / "fhir")
    census = read_census(
        patients=[source.materialise(part, run) for part in source.plan(["Patient"])],
        encounters=[source.materialise(part, run) for part in source.plan(["Encounter"])],
        subject_system=None,
        default_zone=None,
    )
    tables: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for part in source.plan(["Observation", "DocumentReference", "ImagingStudy"]):
        summary = extract_part(
            part,
            source.materialise(part, run),
            census_subjects=census.subjects,
            run_folder=run,
            n_shards=1,
            waveform_archive=hospital / "wfdb",
            image_archive=FolderArchive(hospital / "dicom"),
        )
        for manifest in summary.manifests:
            tables[manifest["table"]].append(pl.read_parquet(run / manifest["path"]))
    whole = {name: pl.concat(frames) for name, frames in tables.items()}
    catalogue = load_catalogue()
    mapping = map_observations(whole["observations"], catalogue)
    judged = [
        judge_events(mapping.events, catalogue.limits(), encounters=census.encounters).quarantine,
        judge_recordings(whole["recordings"], run).quarantine,
        judge_images(whole["images"], run).quarantine,
    ]
    columns = ["source_ref", "source_file", "source_line"]
    places = pl.concat(
        [whole[name].select(columns) for name in ("observations", "recordings", "images")]
    ).unique("source_ref")
    refused = (
        pl.concat([mapping.quarantine, *judged])
        .select("source_ref", "reason")
        .join(places, on="source_ref", how="left")
    )
    placed = whole["quarantine"].select("source_file", "source_line", "reason")
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for file, line, reason in pl.concat(
        [placed, refused.select("source_file", "source_line", "reason")]
    ).iter_rows():
        found[Path(str(file)).name, int(line or 0)].add(reason)
    return found


def bench_faults(patients: int = 72) -> bool:
    """Print the confusion table of the demo hospital's planted faults; return whether it is clean."""
    from deploy.demo_hospital import build_hospital

    rows: dict[str, Counter[str]] = defaultdict(Counter)
    expected: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as folder:
        for name, faults in (("faulty", True), ("clean", False)):
            hospital, run = Path(folder) / name, Path(folder) / f"{name}-run"
            run.mkdir()
            build_hospital(hospital, patients=patients, night=date(2026, 1, 15), history=False, faults=faults)
            found = read_hospital(hospital, run)
            for fault in json.loads((hospital / "faults.json").read_text()):
                reasons = found.pop((Path(fault["file"]).name, fault["line"]), {"(not found)"})
                kind = fault["kind"]
                expected[kind] = fault["reason"]
                rows[kind][", ".join(sorted(reasons))] += 1
            strays = Counter(reason for reasons in found.values() for reason in reasons)
            rows[f"(no fault planted, {name} hospital)"].update(strays)
    print(f"\nDemo hospital, {patients} stays: planted faults and the reasons they were given")
    right = 0
    for kind, reasons in rows.items():
        if kind not in expected:
            continue
        ok = set(reasons) == {expected[kind]}
        right += ok
        print(
            f"  {'right' if ok else 'WRONG':6}{kind:34} {sum(reasons.values()):3} planted, expected {expected[kind]:28} found {dict(reasons)}"
        )
    for name in ("faulty", "clean"):
        strays = rows[f"(no fault planted, {name} hospital)"]
        print(f"  false alarms in the {name} hospital: {sum(strays.values())} {dict(strays) or ''}")
    alarms = sum(sum(rows[f"(no fault planted, {name} hospital)"].values()) for name in ("faulty", "clean"))
    print(f"  {right} of {len(expected)} kinds found and named right, {alarms} false alarms")
    return right == len(expected) and not alarms


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--only", choices=("speed", "signals", "faults"))
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        options.answer.write_text(json.dumps(PARTS[options.part][1](options.path)))
        return 0
    clean = True
    if options.only in (None, "faults"):
        clean = bench_faults()
    if options.only in (None, "signals"):
        bench_signals()
    if options.only in (None, "speed"):
        bench_speed(options.events)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
