"""Batches hold what was known at prediction time, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import FrameType

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_ward import Ward, catalogue, ward

from modelling.batches import (
    Encoding,
    EncodingSettings,
    ImageSettings,
    Modality,
    SignalSettings,
    build_batches,
    fit_encoding,
    plan_batches,
    prepare,
    shuffled_batches,
)
from modelling.batches.picture import prepare_image
from modelling.batches.signal import prepare_signal, standard_leads
from modelling.errors import ArrayUnreadableError, EncodingError

SETTINGS = EncodingSettings(image=ImageSettings(size=32, resize=36), min_samples=2)


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(tmp_path_factory.mktemp("batches"), n=24, seed=3)


def fit(stays: Ward, settings: EncodingSettings = SETTINGS) -> Encoding:
    return fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=settings,
    )


def everything(dataset) -> list[torch.Tensor]:
    batch = dataset.batch(np.arange(len(dataset)))
    return [
        getattr(batch, name)
        for name in batch.__dataclass_fields__
        if name not in ("token_row", "ecg_row", "image_row")
    ]


def test_tokens_are_the_visible_events_in_time_order(stays: Ward) -> None:
    encoding = fit(stays)
    dataset = prepare(**stays.tables(), encoding=encoding)
    batch = dataset.batch([5])
    sample = stays.samples.row(5, named=True)
    own = stays.events.filter(
        (pl.col("subject_id") == sample["subject_id"]) & (pl.col("time") <= sample["prediction_time"])
    ).sort("time")
    assert own.height == batch.feature.numel() > 0
    codes = [encoding.codes[index - 1] for index in batch.feature.tolist()]
    assert codes == own["code"].to_list()
    assert torch.allclose(batch.raw, torch.tensor(own["numeric_value"].to_list()))
    expected = [(sample["prediction_time"] - time).total_seconds() / 3600 for time in own["time"]]
    assert np.allclose(batch.hours.numpy(), expected, atol=1e-4)
    refs = [stays.events["source_ref"][row] for row in batch.token_row.tolist()]
    assert refs == own["source_ref"].to_list()


def test_the_future_moves_no_sample(stays: Ward) -> None:
    """A late-issued value, a later value and a value before the look-back change nothing."""
    encoding = fit(stays)
    before = everything(prepare(**stays.tables(), encoding=encoding))
    sample = stays.samples.row(0, named=True)
    event = stays.events.filter(pl.col("subject_id") == sample["subject_id"]).head(1)
    moment, start = sample["prediction_time"], sample["lookback_start"]
    second = timedelta(seconds=1)

    def planted(time, available) -> pl.DataFrame:
        return event.with_columns(
            pl.lit(time).cast(pl.Datetime("us", "UTC")).alias("time"),
            pl.lit(available).cast(pl.Datetime("us", "UTC")).alias("available_time"),
            pl.lit(999.0).cast(pl.Float32).alias("numeric_value"),
        )

    events = pl.concat(
        [
            stays.events,
            planted(moment - timedelta(hours=2), moment + second),
            planted(moment + second, moment + second),
            planted(moment + second, moment - second),
            planted(start - second, start - second),
        ]
    )
    later = moment + second
    recordings = pl.concat(
        [
            stays.recordings,
            stays.recordings.head(1).with_columns(
                pl.lit("late").alias("recording_id"),
                pl.lit(sample["subject_id"], dtype=pl.Int64).alias("subject_id"),
                pl.lit(moment - timedelta(hours=1)).cast(pl.Datetime("us", "UTC")).alias("time"),
                pl.lit(later).cast(pl.Datetime("us", "UTC")).alias("available_time"),
            ),
        ]
    )
    tables = {**stays.tables(), "events": events, "recordings": recordings}
    after = everything(prepare(**tables, encoding=encoding))
    assert all(
        torch.equal(one, two) or (one.isnan() & two.isnan() | (one == two)).all()
        for one, two in zip(before, after, strict=True)
    )
    # The same rows one second earlier do count.
    seen = {**tables, "events": pl.concat([stays.events, planted(moment - timedelta(hours=2), moment)])}
    counts = [prepare(**tables_, encoding=encoding).token_counts[0] for tables_ in (stays.tables(), seen)]
    assert counts[1] == counts[0] + 1


def test_the_order_of_the_tables_does_not_matter(stays: Ward) -> None:
    encoding = fit(stays)
    shuffled = {
        **stays.tables(),
        **{
            name: getattr(stays, name).sample(fraction=1.0, shuffle=True, seed=1)
            for name in ("events", "recordings", "images", "encounters")
        },
    }
    one, two = (everything(prepare(**tables, encoding=encoding)) for tables in (stays.tables(), shuffled))
    assert all(
        torch.equal(a, b) or (a.isnan() & b.isnan() | (a == b)).all() for a, b in zip(one, two, strict=True)
    )


def test_an_encoding_sees_training_samples_only(stays: Ward) -> None:
    """Scales, bins and windows do not move when another patient's values do (MedM2T's released code: they do)."""
    training = stays.samples.head(12)
    others = stays.samples.tail(12)["subject_id"].implode()

    def fitted(events: pl.DataFrame, recordings: pl.DataFrame) -> Encoding:
        return fit_encoding(
            samples=training,
            encounters=stays.encounters,
            events=events,
            recordings=recordings,
            catalogue=catalogue(),
            settings=SETTINGS,
        )

    moved = stays.events.with_columns(
        pl.when(pl.col("subject_id").is_in(others))
        .then(pl.col("numeric_value") * 100)
        .otherwise(pl.col("numeric_value"))
    )
    fewer = stays.recordings.filter(~pl.col("subject_id").is_in(others))
    assert fitted(stays.events, stays.recordings) == fitted(moved, fewer)
    assert fitted(stays.events, stays.recordings) != fit(stays)


def test_an_encoding_survives_json(stays: Ward) -> None:
    import json

    encoding = fit(stays)
    assert Encoding.from_dict(json.loads(json.dumps(encoding.to_dict()))) == encoding
    with pytest.raises(EncodingError, match="at least one"):
        fit(replace(stays, samples=stays.samples.clear()))


def test_levels_of_two_features_never_share_an_index() -> None:
    from test_models_medfuse import encoding_of

    encoding = encoding_of(levels={"a": (1.0, 2.0), "b": (1.0, 2.0, 3.0)})
    spans = [
        set(range(start, start + len(feature.levels)))
        for start, feature in zip(encoding.level_offsets, encoding.features, strict=True)
    ]
    assert not set.intersection(*spans) and set.union(*spans) == set(range(1, encoding.n_levels))


def test_windows_merge_values_and_keep_the_last_level(stays: Ward) -> None:
    settings_ = replace(SETTINGS, token_window_hours=12.0)
    dataset = prepare(**stays.tables(), encoding=fit(stays, settings_))
    batch = dataset.batch([0])
    pairs = torch.stack([batch.feature, (batch.hours / 12).floor().long()], 1)
    assert len(pairs) == len(pairs.unique(dim=0))
    categorical = [
        position for position, feature in enumerate(dataset.encoding.features, start=1) if feature.categorical
    ]
    assert categorical
    kept = batch.raw[torch.isin(batch.feature, torch.tensor(categorical))]
    assert torch.equal(kept, kept.round())


def test_most_recent_tokens_are_kept(stays: Ward) -> None:
    whole = prepare(**stays.tables(), encoding=fit(stays))
    short = prepare(**stays.tables(), encoding=fit(stays, replace(SETTINGS, max_tokens=7)))
    assert (short.token_counts <= 7).all()
    assert short.left_out["beyond_max_tokens"] == int(np.maximum(whole.token_counts - 7, 0).sum())
    assert torch.equal(short.batch([2]).hours, whole.batch([2]).hours[-7:])


def test_take_and_keep_tokens(stays: Ward) -> None:
    dataset = prepare(**stays.tables(), encoding=fit(stays))
    batch = dataset.batch(np.arange(6))
    again = batch.take(torch.tensor([4, 1, 4]))
    assert torch.equal(again.value[: int(again.token_offsets[1])], dataset.batch([4]).value)
    assert torch.equal(
        again.ecg[int(again.ecg_offsets[1]) : int(again.ecg_offsets[2])], dataset.batch([1]).ecg
    )
    none = batch.keep_tokens(torch.zeros_like(batch.feature, dtype=torch.bool))
    assert not none.has(Modality.EHR).any() and none.token_offsets[-1] == 0
    assert batch.without(Modality.ECG).has(Modality.ECG).sum() == 0 < batch.has(Modality.ECG).sum()


def test_a_damaged_array_is_named_and_left_out(stays: Ward) -> None:
    first = stays.recordings["array_path"][0]
    recordings = stays.recordings.with_columns(
        pl.when(pl.col("array_path") == first)
        .then(pl.lit("0" * 64))
        .otherwise(pl.col("array_sha256"))
        .alias("array_sha256")
    )
    dataset = prepare(**{**stays.tables(), "recordings": recordings}, encoding=fit(stays))
    assert [failure[1:] for failure in dataset.failures] == [
        (stays.recordings["source_ref"][0], "ArrayUnreadableError")
    ]


def test_build_batches_gives_every_sample_once(stays: Ward) -> None:
    batches = list(build_batches(**stays.tables(), encoding=fit(stays), token_budget=200))
    seen = torch.cat([batch.sample for batch in batches]).tolist()
    assert sorted(seen) == list(range(stays.samples.height)) and len(batches) > 3


def calls(work: Callable[[], object]) -> int:
    """Count the calls, of Python and of C, that this thread makes."""
    count = 0

    def count_calls(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(count_calls)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_a_batch_is_gathered_without_work_for_each_sample(stays: Ward) -> None:
    dataset = prepare(**stays.tables(), encoding=fit(stays))
    few = np.flatnonzero(dataset.all.present.all(1).numpy())[:2]
    dataset.batch(few)  # what is done once is done
    many = np.tile(few, 100)
    assert len(dataset.batch(many)) == 200
    assert calls(lambda: dataset.batch(few)) == calls(lambda: dataset.batch(many)) > 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 120), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_plans_hold_every_sample_once_within_the_budget(lengths: list[int], budget: int, most: int) -> None:
    array = np.array(lengths)
    plan = list(plan_batches(array, token_budget=budget, max_samples=most))
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    for rows in plan:
        assert len(rows) <= most and (len(rows) == 1 or array[rows].max() * len(rows) <= budget)
    epoch = shuffled_batches(array, batch_size=most, generator=np.random.default_rng(0))
    assert sorted(np.concatenate(epoch).tolist()) == list(range(len(lengths)))


def test_an_ecg_is_ordered_resampled_filtered_and_cut() -> None:
    settings_ = SignalSettings()
    for rate in (100.0, 250.0, 500.0):
        t = np.arange(int(10 * rate)) / rate
        wave = np.sin(2 * np.pi * 8 * t) + 2.0 + 0.5 * np.sin(2 * np.pi * 0.1 * t)
        array = np.stack([wave * (lead + 1) for lead in range(12)]).astype(np.float32)
        leads = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
        prepared = prepare_signal(array, leads, rate, settings_)
        assert prepared.shape == (12, 640) and prepared.dtype == np.float32
        assert abs(prepared.mean()) < 0.05  # the offset of 2 mV is gone
        expected = np.sin(2 * np.pi * 8 * (np.arange(640) + 300) / 125)
        assert np.corrcoef(prepared[0], expected)[0, 1] > 0.97
        reverse = prepare_signal(array[::-1].copy(), leads[::-1], rate, settings_)
        assert np.allclose(prepared, reverse, atol=1e-5)


def test_limb_leads_follow_from_two_and_short_recordings_are_padded() -> None:
    array = np.stack([np.ones(400), 3 * np.ones(400)]).astype(np.float32)
    known = standard_leads(array, ["i", "ii"])
    assert known[:6, 0].tolist() == [1.0, 3.0, 2.0, -2.0, -0.5, 2.5] and not known[6:].any()
    short = prepare_signal(
        np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32),
        ["I", "II"],
        125.0,
        SignalSettings(),
    )
    assert short.shape == (12, 640) and not short[:, :100].any() and short[:, 200:300].any()
    with pytest.raises(ArrayUnreadableError, match="no standard lead"):
        standard_leads(array, ["x", "y"])
    with pytest.raises(ArrayUnreadableError, match="too short"):
        prepare_signal(array[:, :5], ["I", "II"], 125.0, SignalSettings())


def test_an_image_keeps_its_centre() -> None:
    picture = np.zeros((100, 300), dtype=np.uint8)
    picture[40:60, 140:160] = 255
    prepared = prepare_image(picture, ImageSettings(size=50, resize=50))
    assert prepared.shape == (50, 50) and prepared[25, 25] == 255 and prepared[0, 0] == 0
    with pytest.raises(ArrayUnreadableError, match="uint8"):
        prepare_image(picture.astype(np.float32), ImageSettings())
