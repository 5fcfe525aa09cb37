"""Windowed summaries against a plain loop, and the walls of time around a sample."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.grid import bin_tokens
from modelling.baselines.quantities import measured, quantity, total, with_derived
from modelling.baselines.summaries import WINDOWS, Window, observed_tokens, static_columns, summarise
from modelling.errors import BaselineError
from validation.contracts import empty

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def tokens(rows: list[tuple[int, str, float, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={"row": pl.UInt32, "code": pl.String, "hours_before": pl.Float32, "value": pl.Float32},
        orient="row",
    ).sort("row", "code", "hours_before", descending=[False, False, True], maintain_order=True)


drawn = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["a", "b"]),
        st.integers(0, 96).map(lambda x: x / 2),
        st.integers(-9, 9),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(drawn)
def test_summaries_equal_a_plain_loop(rows: list[tuple[int, str, float, float]]) -> None:
    frame = tokens(rows)
    table = summarise(frame, rows=3, codes=["a", "b", "never seen"])
    for row in range(3):
        for code in ("a", "b", "never seen"):
            mine = [
                (h, v) for r, c, h, v in frame.iter_rows() if (r, c) == (row, code)
            ]  # oldest first, as sorted
            for window in WINDOWS:
                inside = [(h, v) for h, v in mine if window.newest <= h < window.oldest]
                values = np.array([v for _, v in inside])
                hours = np.array([h for h, _ in inside])
                got = {s: float(table.column(f"{code}|{window.name}|{s}")[row]) for s in window.statistics}
                assert got["count"] == len(inside)
                if not inside:
                    assert all(np.isnan(x) for s, x in got.items() if s != "count")
                    continue
                assert got["min"] == values.min()
                assert got["max"] == values.max()
                assert got["mean"] == pytest.approx(values.mean(), abs=1e-5)
                if len(inside) > 1:
                    assert got["std"] == pytest.approx(values.std(ddof=1), abs=1e-4)
                if len(set(hours)) > 1:
                    assert got["slope"] == pytest.approx(np.polyfit(-hours, values, 1)[0], abs=1e-3)
                if window.name == "all":
                    assert (got["first"], got["last"]) == (values[0], values[-1])
                    assert got["hours_since_last"] == hours[-1]
                    assert got["change"] == pytest.approx(values[-1] - values[0])


@settings(max_examples=20, deadline=None)
@given(drawn)
def test_a_row_never_depends_on_other_rows(rows: list[tuple[int, str, float, float]]) -> None:
    whole = summarise(tokens(rows), rows=3, codes=["a", "b"]).values
    alone = summarise(tokens([r for r in rows if r[0] == 1]), rows=3, codes=["a", "b"]).values
    np.testing.assert_array_equal(whole[1], alone[1])


def test_no_bit_of_a_row_depends_on_how_many_stand_beside_it() -> None:
    """Float sums of a group-by do: it adds up in parts that the whole table's size decides."""
    rng = np.random.default_rng(4)
    drawn_rows = [
        (row, code, float(np.float32(rng.random() * 48)), float(np.float32(rng.normal(80, 20))))
        for row in range(120)
        for code in ("a", "b")
        for _ in range(int(rng.integers(1, 90)))
    ]
    windows = tuple(replace(window, statistics=(*window.statistics, "sum")) for window in WINDOWS)
    whole = tokens(drawn_rows)
    beside = summarise(whole, rows=120, codes=["a", "b"], windows=windows).values
    bins = bin_tokens(whole, codes=["a", "b"], step=2.0, hours=48.0)
    amount, _ = total(
        whole.with_columns(pl.lit("urine_output").alias("code")),
        rows=120,
        hours=24.0,
        quantity="urine_output",
    )
    for row in range(0, 120, 3):
        mine = whole.filter(pl.col("row") == row)
        alone = summarise(mine, rows=120, codes=["a", "b"], windows=windows).values
        np.testing.assert_array_equal(beside[row], alone[row])
        assert_frame_equal(
            bins.filter(pl.col("row") == row), bin_tokens(mine, codes=["a", "b"], step=2.0, hours=48.0),
            check_exact=True,
        )  # fmt: skip
        urine = mine.with_columns(pl.lit("urine_output").alias("code"))
        assert amount[row] == total(urine, rows=120, hours=24.0, quantity="urine_output")[0][row]


def test_equal_values_do_not_deviate_and_equal_times_have_no_slope() -> None:
    rows = [
        (0, "a", 0.1, 36.6),
        (0, "a", 0.2, 36.6),
        (0, "a", 0.7, 36.6),
        (1, "a", 0.3, 1.1),
        (1, "a", 0.3, 2.3),
    ]
    table = summarise(tokens(rows), rows=2, codes=["a"])
    assert table.column("a|all|std")[0] == 0.0 == table.column("a|all|slope")[0]
    assert np.isnan(table.column("a|all|slope")[1]) and table.column("a|all|std")[1] > 0


def test_tokens_that_are_not_sorted_are_refused() -> None:
    with pytest.raises(BaselineError, match="not sorted"):
        summarise(
            tokens([(0, "a", 1.0, 1), (0, "b", 1.0, 1)]).reverse().vstack(tokens([(0, "b", 2.0, 1)])),
            rows=1,
            codes=["a", "b"],
        )


def event(code: str, value: float | None, hours: float, available: float | None = None) -> dict:
    time = NOON - timedelta(hours=hours)
    return {
        "subject_id": 1, "time": time, "code": code, "numeric_value": value, "text_value": None,
        "available_time": NOON - timedelta(hours=hours if available is None else available),
        "encounter_id": "e1", "source_ref": "Observation/1", "derived": False,
    }  # fmt: skip


def night(events: list[dict]) -> tuple[pl.DataFrame, pl.DataFrame]:
    samples = pl.DataFrame(
        {
            "subject_id": [1], "prediction_time": [NOON], "boolean_value": [None], "float_value": [None],
            "encounter_id": ["e1"], "task": ["mortality"], "lookback_start": [NOON - timedelta(hours=48)],
        },
        schema=empty("samples").schema,
    )  # fmt: skip
    return samples, pl.DataFrame(events, schema=empty("events").schema)


def test_what_was_not_yet_known_or_lies_outside_is_not_a_token() -> None:
    samples, events = night(
        [
            event("hr", 80, 1),
            event("hr", 81, 1, available=-0.5),  # taken before noon, filed after it
            event("hr", 82, -1),  # in the future
            event("hr", 83, 49),  # before the look-back
            event("hr", None, 2),  # text only
            event("hr", 84, 48),  # on the edge
            event("hr", 85, 0),  # on the edge
        ]
    )
    found = observed_tokens(samples, events)
    assert found.rows() == [(0, "hr", 48.0, 84.0), (0, "hr", 1.0, 80.0), (0, "hr", 0.0, 85.0)]


def test_static_columns_follow_the_samples() -> None:
    samples, _ = night([])
    encounters = pl.DataFrame(
        {"encounter_id": ["e1"], "birth_date": [date(1956, 3, 1)], "sex": ["male"], "ward": ["ICU"]}
    )
    (row,) = static_columns(samples, encounters).rows()
    assert row[0] == 0
    assert row[1] == pytest.approx(70.0, abs=0.01)
    assert row[2:] == (1.0, "ICU")
    (stranger,) = static_columns(samples, encounters.with_columns(encounter_id=pl.lit("e2"))).rows()
    assert stranger == (0, None, None, None)


def test_a_column_that_is_not_there_is_missing_not_an_error() -> None:
    table = FeatureTable(("a", "b"), np.array([[1, 2]], dtype=np.float32))
    aligned = table.aligned(["b", "c", "a"])
    np.testing.assert_array_equal(aligned.values, np.array([[2, np.nan, 1]], dtype=np.float32))
    with pytest.raises(BaselineError, match="not unique"):
        table.beside(table)


def test_custom_window_takes_its_own_hours() -> None:
    frame = tokens([(0, "a", 30.0, 1.0), (0, "a", 12.0, 2.0), (0, "a", 11.9, 3.0)])
    window = Window(name="12-36h", newest=12.0, oldest=36.0, statistics=("mean", "count"))
    table = summarise(frame, rows=1, codes=["a"], windows=[window])
    assert table.values.tolist() == [[1.5, 2.0]]


def test_an_arterial_line_is_taken_before_a_cuff() -> None:
    frame = tokens(
        [
            (0, "systolic_bp", 2.0, 140.0),
            (0, "systolic_bp_invasive", 2.0, 120.0),
            (0, "systolic_bp", 1.0, 110.0),
        ]
    )
    assert quantity(frame, "systolic_pressure").rows() == [(0, 2.0, 120.0), (0, 1.0, 110.0)]


def test_a_ratio_pairs_with_the_latest_earlier_value_of_the_same_patient() -> None:
    frame = tokens(
        [
            (0, "fio2", 20.0, 0.4),
            (0, "fio2", 6.0, 0.5),
            (0, "pao2", 5.0, 100.0),
            (0, "pao2", 30.0, 90.0),
            (1, "pao2", 5.0, 80.0),
        ]
    )
    assert quantity(frame, "pao2_fio2").rows() == [(0, 5.0, 200.0)]
    codes = set(with_derived(frame)["code"])
    assert codes == {"fio2", "pao2", "derived/pao2_fio2"}


def test_a_flushed_line_is_no_measurement_but_unknown_codes_are_kept() -> None:
    frame = tokens(
        [(0, "mean_bp_invasive", 3.0, 0.0), (0, "mean_bp_invasive", 2.0, 70.0), (0, "lactate", 1.0, 0.0)]
    )
    assert measured(frame)["value"].to_list() == [0.0, 70.0]
    assert measured(frame)["code"].to_list() == ["lactate", "mean_bp_invasive"]
