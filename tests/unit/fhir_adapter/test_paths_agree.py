"""The columnar path and the exact path give the same rows, on generated and on real Observations."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fhir_adapter.ndjson import Block
from fhir_adapter.observations import BlockReading, read_block
from fhir_adapter.quarantine import QuarantineLog
from fhir_adapter.times import parse_time, utc_expression

SUBJECTS = {"p1": 1, "p-2": 2}
LINE = {
    "resourceType": "Observation",
    "id": "a",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
    "subject": {"reference": "Patient/p1"},
    "effectiveDateTime": "2026-01-01T10:00:00Z",
}

odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just([]), st.just({}), st.just([None]), st.just("x")
)
text = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "a",
            "{score}",
            "[pH]",
            "[lb_av]",
            "mm[Hg]",
            "{}",
            "[]",
            "[1]",
            "5",
            "µmol/l",
            "null",
            "a\nb",
            'q"',
        ]
    ),
    st.text(max_size=6),
)
coding = st.fixed_dictionaries(
    {},
    optional={
        "system": st.sampled_from(["http://loinc.org", "urn:x", ""]),
        "code": st.sampled_from(["8867-4", "a b", ""]),
        "display": text,
    },
)
concept = st.fixed_dictionaries(
    {}, optional={"coding": st.lists(st.one_of(coding, odd), max_size=3), "text": text}
)
good_concept = st.just({"coding": [{"system": "http://loinc.org", "code": "8867-4"}]})
number = st.one_of(
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, -0.0, 1e300, 1e-320, 5e-324, 37.5, 123456789.123456789]),
)
quantity = st.fixed_dictionaries(
    {},
    optional={
        "value": st.one_of(number, number, number, odd),
        "comparator": st.sampled_from(["<", "<=", ">=", ">", "ad", "~", None]),
        "unit": st.one_of(text, odd),
        "system": st.one_of(st.just("http://unitsofmeasure.org"), odd),
        "code": st.one_of(text, odd),
    },
)
values = {
    "valueQuantity": st.one_of(quantity, odd),
    "valueCodeableConcept": st.one_of(concept, odd),
    "valueString": st.one_of(text, odd),
    "valueBoolean": odd,
    "valueInteger": st.one_of(st.integers(), odd),
    "valueDateTime": st.one_of(text, odd),
    "valueTime": text,
    "valueRange": st.just({}),
    "valueRatio": odd,
    "valuePeriod": odd,
    "dataAbsentReason": st.one_of(st.none(), concept),
}
one_value = st.one_of(
    quantity.map(lambda value: {"valueQuantity": value}),
    st.sampled_from(sorted(values)).flatmap(lambda name: values[name].map(lambda value: {name: value})),
    st.fixed_dictionaries({}, optional=values),
)
time = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds") + "+01:00"),
    st.sampled_from(
        [
            "2026-01-01T10:00:00Z",
            "2026-01-01T10:00:00.123456789-05:00",
            "2026-01-01T10:00:00.5Z",
            "2026-01-01T10:00:60Z",
            "2026-01-01T24:00:00Z",
            "2026-02-30T10:00:00Z",
            "2026-01-01T10:00+00:00",
            "2026-01-01T10:00:00",
            "2026-01-01T10:00:00+15:00",
            "2026-01-01T10:00:00+14:00",
            "2026-01-01T10:00:00-00:00",
            "0001-01-01T00:00:00+10:00",
            "9999-12-31T23:59:59-10:00",
            "2026-01-01",
            "2026-01",
            "2026",
            " 2026-01-01T10:00:00Z",
            "2026-01-01t10:00:00z",
            "2026-01-01T10:00:00Z\n",
            "",
        ]
    ),
    odd,
)
reference = st.one_of(
    st.sampled_from(
        ["Patient/p1", "Patient/p-2", "http://a.example/fhir/Patient/p1", "Patient/p1/_history/2"]
    ).map(lambda link: {"reference": link}),
    st.sampled_from(
        ["Patient/unknown", "Group/p1", "#p1", "urn:uuid:1", "xPatient/p1", "Patient/p1 ", ""]
    ).map(lambda link: {"reference": link}),
    st.sampled_from([{}, {"reference": 5}, {"reference": None}, {"display": "x"}, "Patient/p1", None, []]),
)
component = st.one_of(
    st.builds(lambda code, value: {"code": code} | value, st.one_of(good_concept, concept, odd), one_value),
    st.just(
        {
            "code": {"coding": [{"system": "s", "code": "c"}]},
            "valueQuantity": {"value": 1},
            "modifierExtension": [],
        }
    ),
    odd,
)
rest = st.fixed_dictionaries(
    {},
    optional={
        "meta": st.one_of(
            st.fixed_dictionaries({}, optional={"versionId": st.one_of(text, odd), "lastUpdated": time}), odd
        ),
        "encounter": st.one_of(st.just({"reference": "Encounter/e1"}), st.just({"reference": "x"}), odd),
        "issued": time,
        "effectiveInstant": time,
        "effectivePeriod": st.one_of(st.fixed_dictionaries({}, optional={"start": time, "end": time}), odd),
        "modifierExtension": odd,
        "implicitRules": odd,
        "component": st.one_of(st.lists(component, max_size=3), odd),
        "note": st.just([{"text": "é\u2028x"}]),
        "unknownElement": odd,
    },
)
observation = st.builds(
    lambda head, value, others: head | value | others,
    st.fixed_dictionaries(
        {
            "resourceType": st.one_of(
                st.just("Observation"),
                st.just("Observation"),
                st.sampled_from(["Patient", "OperationOutcome", 5, None]),
            ),
            "id": st.one_of(
                st.sampled_from(["a", "b-1.c", "x" * 64]),
                st.sampled_from(["", "a/b", "x" * 65, 5, None, True, {}]),
            ),
            "status": st.one_of(
                st.just("final"), st.sampled_from(["amended", "corrected", "preliminary", "FINAL", None, 1])
            ),
            "code": st.one_of(good_concept, concept, odd),
            "subject": reference,
            "effectiveDateTime": time,
        }
    ),
    one_value,
    st.one_of(st.just({}), rest),
)
plain = st.builds(
    lambda key, value, unit: {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-01-01T10:00:00Z",
        "valueQuantity": {"value": value, "unit": unit},
    },
    st.sampled_from(["a", "b", "c"]),
    number,
    text,
)
raw_line = st.one_of(
    st.builds(
        lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only, allow_nan=False).encode(
            "utf-8", "surrogatepass"
        ),
        st.one_of(plain, observation),
        st.booleans(),
    ),
    st.sampled_from(
        [
            b"",
            b"   ",
            b"{",
            b"null",
            b"5",
            b"[1]",
            b'{"resourceType":"Observation"} x',
            b'{"a":1}{"a":2}',
            b'{"a":1}\r{"a":2}',
            b'{"resourceType":"Observation","id":"\xff"}',
            b'\xef\xbb\xbf{"resourceType":"Observation"}',
            b'{"id":"\\ud800"}',
            b'{"v":NaN}',
            b'{"v":1e999}',
            b'{"v":01}',
            b'{"a":1,}',
        ]
    ),
)


def read(lines: list[bytes], *, columnar: bool, zone: ZoneInfo | None) -> tuple[BlockReading, pl.DataFrame]:
    log = QuarantineLog(stage="test")
    reading = read_block(
        Block.of(lines), file="f", subjects=SUBJECTS, default_zone=zone, quarantine=log, columnar=columnar
    )
    return reading, log.frame()


def assert_agree(lines: list[bytes], zone: ZoneInfo | None = None) -> None:
    fast, fast_log = read(lines, columnar=True, zone=zone)
    slow, slow_log = read(lines, columnar=False, zone=zone)
    keys = ["source_line", "component"]
    assert_frame_equal(fast.observations.sort(keys), slow.observations.sort(keys))
    assert_frame_equal(fast_log.sort(*keys, "reason"), slow_log.sort(*keys, "reason"))
    assert_frame_equal(
        fast.entries.sort("source_line"), slow.entries.sort("source_line"), check_column_order=False
    )
    assert fast.pulled == slow.pulled == sum(bool(line.strip()) for line in lines)
    rows = set(fast.observations["source_line"]) | set(fast_log.filter("whole")["source_line"])
    assert len(rows) == fast.pulled


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(raw_line, min_size=1, max_size=6), st.sampled_from([None, ZoneInfo("Europe/Berlin")]))
def test_both_paths_agree_on_generated_lines(lines: list[bytes], zone: ZoneInfo | None) -> None:
    assert_agree(lines, zone)


def one_of(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


moment = st.builds(
    "{}-{}-{}T{}:{}:{}{}{}".format,
    one_of("0000", "0001", "0099", "0100", "1900", "2026", "2180", "9899", "9900", "9999"),
    one_of("00", "01", "02", "12", "13"),
    one_of("00", "01", "28", "29", "31", "32"),
    one_of("00", "07", "23", "24"),
    one_of("00", "59", "60"),
    one_of("00", "59", "60", "61"),
    one_of("", ".0", ".999999", ".1234567"),
    one_of("Z", "+00:00", "-00:00", "+14:00", "-14:59", "+14:60", "-15:00", "+23:59", ""),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(moment, min_size=20, max_size=20))
def test_what_the_columnar_path_reads_of_a_time_is_the_exact_paths_reading(texts: list[str]) -> None:
    fast = pl.DataFrame({"time": texts}).select(utc_expression(pl.col("time")))["time"]
    for text, found in zip(texts, fast, strict=True):
        if found is not None:
            assert found == parse_time(text, element="time", default_zone=None), text
    common = pl.DataFrame({"time": ["2026-02-28T07:59:59.5Z", "2180-12-31T23:59:59-14:59"]})
    assert common.select(utc_expression(pl.col("time")))["time"].null_count() == 0


@pytest.mark.parametrize("second", ["60", "59"])
def test_a_leap_second_is_the_last_moment_of_its_minute_on_both_paths(second: str) -> None:
    time = f"2026-06-30T23:59:{second}Z"
    assert_agree([json.dumps(LINE | {"effectiveDateTime": time, "valueQuantity": {"value": 80}}).encode()])
    assert parse_time(time, element="time", default_zone=None).isoformat()[:19] == "2026-06-30T23:59:59"


@settings(max_examples=60, deadline=None)
@given(st.lists(plain, min_size=40, max_size=80), raw_line)
def test_a_bad_line_among_many_good_ones_costs_only_itself(good: list[dict[str, Any]], bad: bytes) -> None:
    lines = [json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") for value in good]
    assert_agree([*lines[:20], bad, *lines[20:]])


def test_ordinary_lines_do_take_the_columnar_path() -> None:
    part = {"code": {"coding": [{"system": "s", "code": "c"}]}, "valueQuantity": {"value": 1.5}}
    lines = [
        LINE | {"valueQuantity": {"value": 1}},
        LINE | {"valueString": "positive"},
        LINE | {"valueCodeableConcept": {"coding": [{"code": "LA1"}]}},
        LINE | {"component": [part, part]},
    ]
    reading, log = read([json.dumps(item).encode() for item in lines] * 20, columnar=True, zone=None)
    assert reading.exact_lines == 0
    assert log.is_empty()
    assert reading.observations.height == 100


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    ["Labevents", "Chartevents.numeric", "VitalSignsED", "ED", "MicroTest", "MicroSusc", "Datetimeevents"],
)
def test_both_paths_agree_on_mimic(name: str, data_dir: Path) -> None:
    with gzip.open(data_dir / "mimic-iv-demo-fhir" / f"MimicObservation{name}.ndjson.gz") as file:
        lines = [line.rstrip(b"\n") for line, _ in zip(file, range(1500), strict=False)]
    patients = {json.loads(line)["subject"]["reference"].removeprefix("Patient/") for line in lines}
    SUBJECTS.update({key: number for number, key in enumerate(sorted(patients), start=100)})
    assert_agree(lines)
