from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sqlalchemy import create_engine
from ward_tables import FEATURES, event, table, ward

from validation.calibration import calibrate, known_outcomes
from validation.drift import (
    Reference,
    build_reference,
    compare_night,
    embedding_values,
    find_axes,
    input_values,
    population_stability,
)
from validation.equations import Counts
from validation.errors import ValidationError
from validation.history import History
from validation.profiles import profile_night


def values(seed: int, n: int, *, shift: float = 0.0, features: int = 20) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    names = [f"feature {number:02d}" for number in range(features)]
    return pl.concat(
        pl.DataFrame(
            {
                "kind": ["input"] * n,
                "name": [name] * n,
                "value": rng.normal(shift if name.endswith("07") else 0.0, 1.0, n),
            }
        )
        for name in names
    )


REFERENCE = build_reference([values(0, 3000)], asked=3000)


def test_nights_like_the_reference_raise_no_alarm() -> None:
    alarms = [
        compare_night(REFERENCE, [values(seed, 120)], asked=120)["drifted"].sum() for seed in range(1, 31)
    ]
    assert sum(alarms) <= 1


def test_a_shifted_feature_is_found_and_no_other() -> None:
    found = compare_night(REFERENCE, [values(99, 120, shift=1.0)], asked=120)
    assert found.filter("drifted")["name"].to_list() == ["feature 07"]
    row = found.row(0, named=True)
    assert row["psi"] > 0.2
    assert row["q_value"] < 0.05


def test_a_feature_that_stops_coming_is_found_as_missing() -> None:
    gone = values(5, 120).filter(pl.col("name") != "feature 03")
    found = compare_night(REFERENCE, [gone], asked=120).filter("drifted")
    assert found.select("kind", "name", "distance").rows() == [("missing", "feature 03", 1.0)]


def test_discrete_features_do_not_drift_by_their_steps() -> None:
    rng = np.random.default_rng(3)

    def eyes(n: int) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "kind": ["input"] * n,
                "name": ["gcs_eye"] * n,
                "value": rng.choice([1.0, 2, 3, 4], n, p=[0.1, 0.1, 0.2, 0.6]),
            }
        )

    reference = build_reference([eyes(2000)], asked=2000)
    assert sum(compare_night(reference, [eyes(80)], asked=80)["drifted"].sum() for _ in range(30)) == 0


def test_the_stability_index_of_equal_samples_is_near_zero() -> None:
    rng = np.random.default_rng(0)
    assert population_stability(rng.normal(size=60), rng.normal(size=3000)) < 0.2
    assert population_stability(rng.normal(2, 1, size=60), rng.normal(size=3000)) > 1


def test_embeddings_drift_along_the_references_axes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(size=(600, 32)) * np.linspace(3, 0.1, 32)
    axes = find_axes(training, count=4)
    reference = build_reference([embedding_values("ecg", training, axes)], asked=600, axes={"ecg": axes})
    reference.save(tmp_path)
    loaded = Reference.load(tmp_path)
    same = embedding_values("ecg", rng.normal(size=(80, 32)) * np.linspace(3, 0.1, 32), loaded.axes["ecg"])
    moved = embedding_values(
        "ecg", rng.normal(size=(80, 32)) * np.linspace(3, 0.1, 32) + axes[1][0] * 4, loaded.axes["ecg"]
    )
    assert compare_night(loaded, [same], asked=80)["drifted"].sum() == 0
    assert compare_night(loaded, [moved], asked=80).filter("drifted")["name"].to_list() == ["ecg axis 1"]


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no drift reference in"):
        Reference.load(tmp_path)


def test_each_sample_gives_the_last_value_that_it_knew() -> None:
    tables = ward(patients=12)
    late = event(0, "heart_rate", 999.0, hours_ago=0.5)
    late["available_time"] = late["time"] + timedelta(hours=5)
    last = table("events", [event(0, "heart_rate", 61.0, hours_ago=0.75), late])
    found = input_values(pl.concat([tables["events"], last]), tables["samples"])
    assert found.height == 12 * len(FEATURES)
    heart_rates = found.filter(pl.col("name") == "heart_rate")["value"]
    assert 61.0 in heart_rates
    assert 999.0 not in heart_rates


class TestHistory:
    def record(self, history: History, night: str, quarantined: int) -> None:
        counts = Counts(
            pulled=1000,
            accepted=1000 - quarantined,
            quarantined=quarantined,
            eligible=24,
            scored=20,
            skipped=4,
        )
        profiles = profile_night(**ward(), counts=counts)
        history.record(
            site="demo",
            night=night,
            recorded_at=datetime(2026, 1, 19, 5, tzinfo=UTC),
            profiles=profiles,
            counts=counts,
            further={"mean_probability": 0.1},
        )

    def test_thirty_nights_are_kept_apart_and_in_order(self) -> None:
        history = History(create_engine("sqlite://"))
        nights = [f"2026-01-{day:02d}" for day in range(1, 6)]
        for number, night in enumerate(nights):
            self.record(history, night, quarantined=number)
        trends = history.trends(site="demo", until="2026-01-04", nights=3)
        shares = trends.filter(pl.col("metric") == "quarantined_share")
        assert shares["night"].to_list() == nights[1:4]
        assert shares["value"].to_list() == pytest.approx([0.001, 0.002, 0.003])
        assert trends.filter(pl.col("metric") == "scored")["value"].to_list() == [20.0] * 3
        assert history.trends(site="other", until="2026-12-31").height == 0
        medians = history.feature_trend("heart_rate", site="demo", until="2026-12-31").filter(
            pl.col("metric") == "q50"
        )
        assert medians.height == 5

    def test_a_night_run_again_replaces_itself(self, tmp_path: Path) -> None:
        history = History(create_engine(f"sqlite:///{tmp_path / 'h.sqlite'}"))
        self.record(history, "2026-01-19", quarantined=5)
        self.record(history, "2026-01-19", quarantined=7)
        trends = history.trends(site="demo", until="2026-01-19")
        assert trends.filter(pl.col("metric") == "quarantined")["value"].to_list() == [7.0]


class TestCalibration:
    def test_bins_hold_equal_numbers_and_agree_with_a_calibrated_model(self) -> None:
        rng = np.random.default_rng(0)
        probability = rng.beta(2, 6, 4000)
        pairs = pl.DataFrame(
            {
                "encounter_id": [f"e{number}" for number in range(4000)],
                "probability": probability,
                "outcome": (rng.random(4000) < probability).astype(float),
            }
        )
        table = calibrate(pairs)
        assert table["n"].to_list() == [400] * 10
        assert (table["predicted"] - table["observed"]).abs().max() < 0.07

    def test_few_scores_give_few_bins_and_very_few_give_none(self) -> None:
        pairs = pl.DataFrame(
            {
                "encounter_id": [f"e{number}" for number in range(25)],
                "probability": [0.1] * 25,
                "outcome": [0.0] * 25,
            }
        )
        assert calibrate(pairs).height == 2
        assert calibrate(pairs.head(9)).height == 0
        assert calibrate(pairs.clear()).height == 0

    def test_one_stay_scored_on_many_nights_is_still_one_patient(self) -> None:
        pairs = pl.DataFrame({"encounter_id": ["e"] * 60, "probability": [0.3] * 60, "outcome": [1.0] * 60})
        assert calibrate(pairs).height == 0

    def test_only_stays_that_ended_count(self) -> None:
        scores = pl.DataFrame({"encounter_id": ["a", "b", "c"], "probability": [0.1, 0.2, None]})
        outcomes = pl.DataFrame({"encounter_id": ["a", "b", "c"], "died_in_hospital": [True, None, False]})
        assert known_outcomes(scores, outcomes).rows() == [("a", 0.1, 1.0)]
