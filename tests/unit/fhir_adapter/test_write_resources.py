"""Resources as they are built: what stands in them, what never does, and what is refused before sending."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st
from ward_scores import CARD, DIGEST, NIGHT, RUN_SYSTEM, resources, score, scores

from fhir_adapter.write_back import Coding, ModelFacts, Threshold, build_resources
from fhir_adapter.write_back.canonical import canonical, content_hash
from fhir_adapter.write_back.checks import problems
from fhir_adapter.write_back.model_facts import RISK_LEVELS
from fhir_adapter.write_back.observation import observation
from fhir_adapter.write_back.preparation import in_order, key_of, localise, model_digests
from fhir_adapter.write_back.risk_assessment import MAX_BASIS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_SHARE = "prediction.probabilityDecimal: not between 0 and 1"
NO_REFERENCE = "RiskAssessment.subject.reference: not a reference"


def predicted(**fields: Any) -> dict[str, Any]:
    return {"prediction": [fields]}


def build(*rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    facts = {"card": CARD, "site": "ward", "site_uri": "https://ward.example", "partition": NIGHT}
    return build_resources(scores(*rows), **(facts | options))


def only(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (item,) = [one for one in found if one["resourceType"] == kind]
    return item


class TestRiskAssessment:
    def test_says_who_what_when_and_from_what(self) -> None:
        risk = only(build(score(7)), "RiskAssessment")
        assert risk["id"] == risk["identifier"][0]["value"] == score(7)["score_key"]
        assert risk["identifier"][0]["system"] == "https://ward.example/fhir/identifier/score"
        assert risk["status"] == "final"
        assert risk["meta"]["security"][0]["code"] == "AIAST"
        assert risk["meta"]["tag"] == [{"system": RUN_SYSTEM, "code": NIGHT}]
        assert risk["method"]["coding"][0]["version"] == "1.2"
        assert risk["code"]["coding"][0]["code"] == "in-hospital-mortality"
        assert risk["subject"] == {"reference": "Patient/p7"}
        assert risk["encounter"] == {"reference": "Encounter/e7"}
        assert risk["occurrenceDateTime"] == "2026-01-19T04:00:00+00:00"
        assert risk["basis"] == [{"reference": "Observation/o7"}]
        (prediction,) = risk["prediction"]
        assert prediction["outcome"]["coding"] == [
            {"system": "http://snomed.info/sct", "code": "419099009", "display": "Dead"}
        ]
        assert prediction["probabilityDecimal"] == 0.3  # 0.1 + 0.2 as a person would write it
        assert prediction["qualitativeRisk"]["coding"][0]["code"] == "moderate"
        assert prediction["whenPeriod"] == {
            "start": "2026-01-19T04:00:00+00:00",
            "end": "2026-01-21T04:00:00+00:00",
        }
        assert prediction["rationale"] == (
            "Used: clinical measurements (+0.120), ECG (-0.010). Missing: chest radiograph. "
            "Most influential: heart_rate (+0.050). Interval: 0.1 to 0.4."
        )
        assert risk["note"] == [
            {"text": "Computed without: chest radiograph. Score from: clinical measurements, ECG."}
        ]

    def test_times_are_shown_in_the_wards_zone(self) -> None:
        risk = only(build(score(1), zone=ZoneInfo("Europe/Berlin")), "RiskAssessment")
        assert risk["occurrenceDateTime"] == "2026-01-19T05:00:00+01:00"

    def test_until_discharge_the_period_is_open(self) -> None:
        risk = only(build(score(1, horizon_hours=0.0)), "RiskAssessment")
        assert risk["prediction"][0]["whenPeriod"] == {"start": "2026-01-19T04:00:00+00:00"}

    def test_a_predicted_value_is_no_probability(self) -> None:
        row = score(1, probability=None, value=3.25, risk_level=None, lower=None, upper=None)
        card = ModelFacts(**(CARD.__dict__ | {"unit": "d", "thresholds": ()}))
        risk = only(build(row, card=card), "RiskAssessment")
        (prediction,) = risk["prediction"]
        assert "probabilityDecimal" not in prediction and "qualitativeRisk" not in prediction
        assert prediction["rationale"].endswith("Predicted value: 3.25 d.")
        assert problems(risk) == []

    def test_a_level_outside_the_code_system_is_text(self) -> None:
        risk = only(build(score(1, risk_level="very high")), "RiskAssessment")
        assert risk["prediction"][0]["qualitativeRisk"] == {"text": "very high"}

    def test_the_basis_is_capped_and_rows_of_tables_are_no_literal_references(self) -> None:
        basis = [f"Observation/o{n}" for n in range(80)]
        risk = only(build(score(1, basis=["labevents:7", *basis])), "RiskAssessment")
        assert len(risk["basis"]) == MAX_BASIS
        assert risk["basis"][0]["identifier"]["value"] == "labevents:7"
        assert "reference" not in risk["basis"][0]

    def test_references_lead_to_the_source_where_it_is_another_server(self) -> None:
        risk = only(build(score(1), reference_base="https://ehr.example/fhir/"), "RiskAssessment")
        assert risk["subject"]["reference"] == "https://ehr.example/fhir/Patient/p1"
        assert risk["basis"][0]["reference"] == "https://ehr.example/fhir/Observation/o1"
        assert risk["performer"]["reference"].startswith("Device/")
        assert problems(risk) == []


class TestModel:
    def test_one_device_a_weights_digest_without_a_run(self) -> None:
        device = only(build(score(1)), "Device")
        assert device["identifier"][0]["value"] == DIGEST
        assert [item["value"] for item in device["version"]] == ["1.2", DIGEST]
        assert "tag" not in device["meta"]
        assert device["note"][-1]["text"] == "Risk levels: low from 0, moderate from 0.2, high from 0.5."
        assert only(build(score(2), partition="2026-01-20"), "Device") == device
        other = only(
            build(score(1, model_digest="f" * 64), card=ModelFacts(**(CARD.__dict__ | {"digest": "f" * 64}))),
            "Device",
        )
        assert other["id"] != device["id"]

    def test_the_card_is_whole_and_its_hash_right(self) -> None:
        attachment = only(build(score(1)), "DocumentReference")["content"][0]["attachment"]
        content = base64.b64decode(attachment["data"])
        assert content.decode() == CARD.markdown
        assert attachment["size"] == len(content)
        assert base64.b64decode(attachment["hash"]) == hashlib.sha1(content).digest()

    def test_without_the_drafts_there_are_no_profiles_and_no_card(self) -> None:
        found = build(score(1), transparency_profiles=False)
        assert [item["resourceType"] for item in found] == ["Device", "RiskAssessment", "Provenance"]
        assert "aitransparency" not in json.dumps(found)

    def test_facts_come_from_a_card(self) -> None:
        card = {
            "name": "m",
            "version": "2",
            "task": "los",
            "thresholds": [{"from": 0.5, "level": "high"}],
            "limits": ["x"],
            "description": "why",
        }
        facts = ModelFacts.from_card(
            card, digest="d", title="Stay", outcomes=[Coding("s", "c")], markdown="# m"
        )
        assert facts.thresholds == (Threshold(0.5, "high"),)
        assert (facts.intended_use, facts.limits, facts.horizon_hours) == ("why", ("x",), None)
        with pytest.raises(KeyError):
            ModelFacts.from_card({}, digest="d", title="", outcomes=[], markdown="")


class TestTransparencyDrafts:
    """What the profiles AI-Device, AI-ModelCard and AI-Provenance demand beyond R4."""

    def test_device_card_and_provenance(self) -> None:
        found = build(score(1))
        base = "http://hl7.org/fhir/uv/aitransparency"
        kind = {"system": f"{base}/CodeSystem/AIdeviceTypeCS", "code": "Artificial-Intelligence"}
        inputs = f"{base}/CodeSystem/AIinputsCS"
        device, card, made = (only(found, name) for name in ("Device", "DocumentReference", "Provenance"))
        assert device["meta"]["profile"] == [f"{base}/StructureDefinition/AI-Device"]
        assert device["type"]["coding"][0].items() >= kind.items()
        (extension,) = device["extension"]
        assert extension["url"] == f"{base}/StructureDefinition/aitransparency.modelCardDescription"
        assert extension["valueReference"] == {"reference": f"DocumentReference/{card['id']}"}
        assert card["meta"]["profile"] == [f"{base}/StructureDefinition/AI-ModelCard"]
        assert [(item["system"], item["code"]) for item in card["type"]["coding"]] == [
            (inputs, "AIModelCard")
        ]
        assert card["category"][0]["coding"][0]["code"] == "AIModelCardMarkdownFormat"
        assert card["content"][0]["attachment"]["contentType"] == "text/markdown"
        assert made["meta"]["profile"] == [f"{base}/StructureDefinition/AI-Provenance"]
        assert made["reason"][0]["coding"][0]["code"] == "AIAST"
        (agent,) = made["agent"]
        assert agent["role"][0]["coding"][0].items() >= kind.items()
        assert agent["who"] == {"reference": f"Device/{device['id']}"}
        assert made["entity"] == [
            {"role": "derivation", "what": {"reference": f"DocumentReference/{card['id']}"}}
        ]


class TestProvenance:
    def test_batches_name_every_score_once(self) -> None:
        found = build(*(score(n) for n in range(5)), provenance_batch=2)
        batches = [item for item in found if item["resourceType"] == "Provenance"]
        targets = [one["reference"] for item in batches for one in item["target"]]
        assert [len(item["target"]) for item in batches] == [2, 2, 1]
        assert sorted(targets) == sorted(
            f"RiskAssessment/{item['id']}" for item in found if item["resourceType"] == "RiskAssessment"
        )
        assert len({item["id"] for item in batches}) == 3
        device = only(found, "Device")["id"]
        assert {item["agent"][0]["who"]["reference"] for item in batches} == {f"Device/{device}"}
        assert {item["recorded"] for item in batches} == {"2026-01-19T04:00:00+00:00"}


class TestTheWhole:
    def test_no_scores_no_resources(self) -> None:
        assert build() == []

    def test_scores_of_other_weights_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"1 score\(s\) were not made by the weights"):
            build(score(1), score(2, model_digest="0" * 64))

    @settings(deadline=None)
    @given(st.permutations(range(6)))
    def test_the_order_of_rows_does_not_matter(self, order: list[int]) -> None:
        rows = [score(n) for n in range(6)]
        assert canonical(build(*(rows[n] for n in order))) == canonical(build(*rows))

    def test_no_value_of_the_record_enters(self) -> None:
        rows = scores(score(987654321))
        text = json.dumps(build(score(987654321)))
        assert "987654321" in text  # as part of Patient/p987654321 and Encounter/e987654321 only
        cleaned = text.replace("p987654321", "").replace("e987654321", "").replace("o987654321", "")
        assert "987654321" not in cleaned
        assert "cpu" not in cleaned and rows.height == 1

    @settings(deadline=None)
    @given(
        probability=st.floats(0, 1),
        level=st.sampled_from([*RISK_LEVELS, None]),
        horizon=st.sampled_from([0.0, 24.0, 48.0]),
        present=st.lists(st.sampled_from(["ehr", "ecg", "cxr"]), unique=True),
        basis=st.lists(st.sampled_from(["Observation/a", "labevents:1", "https://e.example/fhir/Media/1"])),
        moment=st.integers(0, 5_000_000_000_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms)),
    )
    def test_every_resource_is_sound_r4(
        self,
        probability: float,
        level: str | None,
        horizon: float,
        present: list[str],
        basis: list[str],
        moment: datetime,
    ) -> None:
        row = score(
            1,
            probability=probability,
            risk_level=level,
            horizon_hours=horizon,
            modalities_present=present,
            modalities_missing=[name for name in ("ehr", "ecg", "cxr") if name not in present],
            basis=basis,
            prediction_time=moment,
        )
        found = build(row)
        risk = only(found, "RiskAssessment")
        for item in (*found, observation(risk)):
            assert problems(item) == []
        written = risk["prediction"][0]["probabilityDecimal"]
        assert abs(written - probability) <= 0.00005 + 1e-12
        assert len(repr(written)) <= 6

    def test_the_library_reads_back_what_was_built(self) -> None:
        for item in resources():
            get_fhir_model_class(item["resourceType"]).model_validate_json(json.dumps(item))


class TestChecks:
    @pytest.mark.parametrize(
        ("kind", "change", "found"),
        [
            ("RiskAssessment", {"status": "done"}, "status: not in the value set"),
            ("RiskAssessment", {"id": "a b"}, "id: not a FHIR id"),
            ("RiskAssessment", {"encounter": None}, "encounter: missing"),
            ("RiskAssessment", {"occurrenceDateTime": None}, "occurrenceDateTime: missing"),
            ("RiskAssessment", {"subject": {"reference": "Patient/a b"}}, NO_REFERENCE),
            ("RiskAssessment", predicted(outcome={"text": "x"}, probabilityDecimal=1.5), NO_SHARE),
            ("RiskAssessment", predicted(outcome={"text": "x"}, probabilityDecimal=math.nan), NO_SHARE),
            ("RiskAssessment", predicted(probabilityDecimal=0.5), "prediction.outcome: missing"),
            ("RiskAssessment", {"reason": [{"concept": {"text": "R5"}}]}, "reason: extra_forbidden"),
            ("Device", {"status": "bogus"}, "status: not in the value set"),
            ("Provenance", {"agent": None}, "agent"),
            ("DocumentReference", {"content": None}, "content"),
        ],
    )  # fmt: skip
    def test_what_the_library_lets_pass_is_found(self, kind: str, change: dict[str, Any], found: str) -> None:
        item = next(one for one in resources() if one["resourceType"] == kind)
        assert problems(item) == []
        broken = {key: value for key, value in (item | change).items() if value is not None}
        assert any(text.startswith(found) for text in problems(broken)), problems(broken)

    def test_values_never_stand_in_a_problem(self) -> None:
        item = next(one for one in resources() if one["resourceType"] == "RiskAssessment")
        secret = "Jane Doe 1944"
        broken = item | {
            "status": secret,
            "occurrenceDateTime": secret,
            "subject": {"reference": secret},
            "mothersName": secret,
        }
        text = " ".join(problems(broken))
        assert "Jane" not in text and "1944" not in text

    def test_other_types_are_not_ours_to_write(self) -> None:
        assert problems({"resourceType": "Patient", "id": "1"}) == [
            "resourceType: not written by Nightingale"
        ]


class TestContentHash:
    def test_what_a_server_changes_does_not_count(self) -> None:
        ours = resources(1)[2]
        theirs = json.loads(json.dumps(ours)) | {
            "id": "77",
            "meta": {"versionId": "3"},
            "text": {"status": "generated", "div": "<div/>"},
            "status": "corrected",
        }
        assert content_hash(ours) == content_hash(theirs)

    @pytest.mark.parametrize(
        "change", [{"status": "amended"}, {"note": []}, {"subject": {"reference": "Patient/2"}}]
    )
    def test_what_it_says_does(self, change: dict[str, Any]) -> None:
        ours = resources(1)[2]
        assert content_hash(ours) != content_hash(ours | change)

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.text(max_size=3), st.one_of(st.integers(-9, 9), st.text(max_size=3), st.booleans())
        )
    )
    def test_keys_in_any_order(self, value: dict[str, Any]) -> None:
        turned = dict(reversed(value.items()))
        assert canonical(value) == canonical(turned)
        assert content_hash(value) == content_hash(turned)

    def test_one_is_one(self) -> None:
        assert content_hash({"x": [1.0, {"y": 0.0}]}) == content_hash({"x": [1, {"y": 0}]})
        assert content_hash({"x": 1}) != content_hash({"x": True})


class TestPreparation:
    def test_references_follow_the_server(self) -> None:
        found = resources(2)
        own = {key_of(item): item for item in found}
        risks = [item for item in found if item["resourceType"] == "RiskAssessment"]
        device, provenance = only(found, "Device"), only(found, "Provenance")
        places = {key_of(device): "Device/9", key_of(risks[1]): "Observation/5"}
        moved = localise(provenance, own=own, places=places)
        assert moved is not None
        assert moved["target"] == [{"reference": "Observation/5"}]
        assert moved["agent"][0]["who"] == {"reference": "Device/9"}
        risk = localise(risks[0], own=own, places=places)
        assert risk is not None
        assert risk["performer"] == {"reference": "Device/9"}
        assert risk["subject"] == risks[0]["subject"]
        assert localise(provenance, own=own, places={}) is None

    def test_each_resource_knows_its_model(self) -> None:
        found = resources(2)
        digests = model_digests(found)
        assert set(digests) == {key_of(item) for item in found}
        assert set(digests.values()) == {DIGEST}

    def test_order(self) -> None:
        kinds = [[item["resourceType"] for item in group] for group in in_order(resources(2))]
        assert kinds == [["DocumentReference"], ["Device"], ["RiskAssessment"] * 2, ["Provenance"]]


class TestObservation:
    def test_says_the_same(self) -> None:
        risk = only(build(score(1, basis=["Observation/o1", "Encounter/e1"])), "RiskAssessment")
        item = observation(risk)
        assert (item["id"], item["identifier"], item["meta"]) == (
            risk["id"],
            risk["identifier"],
            risk["meta"],
        )
        assert item["valueQuantity"]["value"] == risk["prediction"][0]["probabilityDecimal"]
        assert item["interpretation"] == [risk["prediction"][0]["qualitativeRisk"]]
        assert item["device"] == risk["performer"]
        assert item["derivedFrom"] == [{"reference": "Observation/o1"}]  # R4 allows no Encounter there
        assert problems(item) == []

    def test_a_predicted_value(self) -> None:
        item = observation(only(build(score(1, probability=None, value=2.0)), "RiskAssessment"))
        assert "Predicted value: 2.0" in item["valueString"]
        assert problems(item) == []
