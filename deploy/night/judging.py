"""Middle steps of a night: validate what came, map it to events, and let the gate decide."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from deploy.night.run import Run
from deploy.settings import Settings
from deploy.site_catalogue import site_catalogue
from modelling.mapping import map_observations
from validation.contracts import Manifest, empty, read_table, write_json
from validation.ecg_quality import judge_recordings
from validation.image_quality import judge_images
from validation.reasons import Reason
from validation.rules import judge_events

EXTRACTED = ("observations", "recordings", "images")


def shard_name(shard: int) -> str:
    """Return the file name stem of a shard."""
    return f"{shard:04d}"


def _extracted(run: Run, shard: int) -> dict[str, pl.DataFrame]:
    """Return one shard of every extracted table over all parts, in part order.

    A summary names the files of all shards, and is read by all shards: it is parsed once a shard, and only
    what belongs to it becomes an object, so that a night of many parts and shards is not spent here.
    """
    frames = {table: [empty(table)] for table in EXTRACTED}
    for path in sorted(run.path.glob("extract/*/summary.json")):
        for fields in json.loads(path.read_bytes())["manifests"]:
            if fields["shard"] == shard and fields["table"] in frames:
                frames[fields["table"]].append(read_table(Manifest.from_dict(fields), folder=run.path))
    return {table: pl.concat(parts) for table, parts in frames.items()}


def _lines(frame: pl.DataFrame) -> int:
    return frame.select("source_file", "source_line").n_unique() if frame.height else 0


def _repeated(frame: pl.DataFrame, keys: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a frame into first rows and rows of a resource that already came in another part."""
    first = pl.struct("source_file", "source_line") == pl.struct("source_file", "source_line").first().over(
        keys
    )
    return frame.filter(first), frame.filter(~first)


def _refused(frame: pl.DataFrame, stage: str, reason: Reason) -> pl.DataFrame:
    return frame.select(
        pl.lit(stage).alias("stage"),
        pl.lit(str(reason)).alias("reason"),
        "source_file",
        "source_line",
        "source_ref",
        pl.lit(None, dtype=pl.UInt16).alias("component"),
        pl.lit(None, dtype=pl.String).alias("feature"),
        pl.lit(None, dtype=pl.String).alias("detail"),
        pl.lit(True).alias("whole"),
    )


def validate(settings: Settings, run: Run, shard: int) -> dict[str, Any]:
    """Judge one shard's waveforms and images, and drop resources that another part already brought."""
    del settings
    name = shard_name(shard)
    came = _extracted(run, shard)
    observations, repeated = _repeated(came["observations"], ["source_ref"])
    recordings, repeated_recordings = _repeated(came["recordings"], ["recording_id"])
    images, repeated_images = _repeated(came["images"], ["image_id"])
    judged_recordings = judge_recordings(recordings, run.path)
    judged_images = judge_images(images, run.path)
    duplicates = [
        _refused(
            frame.unique(["source_file", "source_line"], keep="first", maintain_order=True),
            "validate",
            Reason.RESOURCE_DUPLICATE,
        )
        for frame in (repeated, repeated_recordings, repeated_images)
    ]
    quarantine = pl.concat(
        [*duplicates, judged_recordings.quarantine, judged_images.quarantine], how="diagonal_relaxed"
    )
    run.save(observations, "observations", f"observations/{name}", shard=shard)
    run.save(judged_recordings.accepted, "recordings", f"recordings/{name}", shard=shard)
    run.save(judged_images.accepted, "images", f"images/{name}", shard=shard)
    run.save(quarantine, "quarantine", f"quarantine/validate-{name}", shard=shard)
    facts = {
        "shard": shard,
        "observations": _lines(observations),
        "recordings": _lines(judged_recordings.accepted),
        "images": _lines(judged_images.accepted),
        "quarantined": _lines(repeated)
        + _lines(came["recordings"])
        - _lines(judged_recordings.accepted)
        + _lines(came["images"])
        - _lines(judged_images.accepted),
    }
    write_json(facts, run.path / "validate" / f"{name}.json")
    run.report_progress("validate", 1, None)
    return facts


def map_shard(settings: Settings, run: Run, shard: int) -> dict[str, Any]:
    """Map one shard's observations to events of the catalogue and judge them by its limits."""
    name = shard_name(shard)
    catalogue = site_catalogue(settings)
    observations = run.load(f"observations/{name}")
    mapping = map_observations(observations, catalogue)
    judgement = judge_events(mapping.events, catalogue.limits())
    quarantine = pl.concat([mapping.quarantine, judgement.quarantine], how="diagonal_relaxed")
    rows = observations.group_by("source_ref").len("rows")
    refused = quarantine.group_by("source_ref").len("refused")
    lost = rows.join(refused, on="source_ref").filter(pl.col("refused") >= pl.col("rows"))
    quarantine = quarantine.with_columns(
        pl.col("source_ref").is_in(lost["source_ref"].implode()).alias("whole")
    )
    run.save(judgement.accepted, "events", f"events/{name}", shard=shard)
    run.save(quarantine, "quarantine", f"quarantine/map-{name}", shard=shard)
    mapping.unmapped.write_parquet(run.path / "events" / f"{name}.unmapped.parquet")
    facts = {
        "shard": shard,
        "resources": rows.height,
        "accepted": rows.height - lost.height,
        "quarantined": lost.height,
        "events": judgement.accepted.height,
        "counts": mapping.counts,
    }
    write_json(facts, run.path / "map" / f"{name}.json")
    run.report_progress("map", 1, None)
    return facts
