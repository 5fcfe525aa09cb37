"""The items of TRIPOD+AI, each answered from a model's record or marked not applicable.

Collins et al., BMJ 2024;385:e078378. Items are named in our own words; numbers are the statement's.
"""

from __future__ import annotations

from collections.abc import Mapping

NOT_APPLICABLE = "Not applicable"

ITEMS: tuple[tuple[str, str, str], ...] = (
    ("1", "Title", "Model for {title}, development with internal validation on held-out patients."),
    ("2", "Abstract", "The first lines of this card."),
    ("3a", "Health context", "Nightly decision support on wards; docs/architecture.md."),
    ("3b", "Target population and users", "{population}. Read by clinicians in their record; never acted on alone."),
    ("3c", "Known inequalities", "None was assumed away: see the subgroups below and item 14."),
    ("4", "Objectives", "Predict {title} from data known at the prediction time."),
    ("5a", "Sources of data", "{data}"),
    ("5b", "Dates", "Those of data version {version}; the site's records give the period."),
    ("6a", "Setting", "{description}"),
    ("6b", "Eligibility", "{population}; every rule with what it left is in the retraining's attrition.csv."),
    ("6c", "Treatments", "Not modelled; they reach the model only through what is measured."),
    ("7", "Data preparation", "Catalogue {catalogue}, one mapper for training and serving; docs/catalogue.md."),
    ("8a", "Outcome", "{outcome}"),
    ("8b", "Outcome assessment", "From the hospital's own encounter and death records; no subjective part."),
    ("8c", "Blinding of outcome", "Recorded by people who never saw the score: the model did not exist yet."),
    ("9a", "Choice of predictors", "All catalogue features with enough data; no choice by outcome."),
    ("9b", "Definition of predictors", "{features} features, inputs {modalities}; known at prediction time only."),
    ("9c", "Blinding of predictors", "Charted in routine care before the outcome."),
    ("10", "Sample size", "{samples}; no calculation was made beforehand, intervals show what the size allows."),
    ("11", "Missing data", "Missing is normal: masks and presence flags, no imputation by outcome."),
    ("12a", "Partition of the data", "By patient, by a hash of the patient number; a patient keeps the split."),
    ("12b", "Handling of predictors", "Encoding in config.json, fitted on training patients only."),
    ("12c", "Model and its building", "{kind}; settings and seed in config.json; early stopping on tuning patients."),
    ("12d", "Heterogeneity", "By unit, sex, age and modality; see the subgroups."),
    ("12e", "Performance measures", "Discrimination, calibration, net benefit; 95 % bootstrap by patient."),
    ("12f", "Model updating", "Calibration {calibration}, chosen on tuning patients."),
    ("12g", "How predictions are computed", "modelling.scoring.score_samples, the code that scores at night."),
    ("13", "Class imbalance", "Not resampled; calibration is checked on the true prevalence."),
    ("14", "Fairness", "No subgroup may fall behind the champion beyond the margin; see the subgroups."),
    ("15", "Output", "Probability with conformal bounds and a level; thresholds by decision curve: {thresholds}."),
    ("16", "Training against evaluation", "The same hospital and time: this is internal validation."),
    ("17", "Ethical approval", f"{NOT_APPLICABLE} to a card: the site's approval for use of its data states it."),
    ("18a", "Funding", f"{NOT_APPLICABLE}: no funder of this training."),
    ("18b", "Conflicts of interest", f"{NOT_APPLICABLE} to a card: those who publish state theirs."),
    ("18c", "Protocol", "docs/retraining.md; rules of promotion are settings, fixed before training."),
    ("18d", "Registration", f"{NOT_APPLICABLE}: not a registered study."),
    ("18e", "Data sharing", f"{NOT_APPLICABLE}: patients' data stay at the site; fingerprint {{fingerprint}}."),
    ("18f", "Code sharing", "Nightingale {code}, Apache-2.0."),
    ("19", "Patient and public involvement", f"{NOT_APPLICABLE}: none took part in this training."),
    ("20a", "Flow of participants", "attrition.csv of the retraining; {samples}."),
    ("20b", "Characteristics", "Sizes and events by subgroup below."),
    ("20c", "Difference to development data", f"{NOT_APPLICABLE}: one source, split by patient."),
    ("21", "Numbers in development", "{samples}"),
    ("22", "Specification", "Weights and config.json under digest {digest}."),
    ("23a", "Performance", "The table of metrics, with intervals."),
    ("23b", "Heterogeneity of performance", "The table of subgroups."),
    ("24", "Results of updating", "Comparison with the former champion below."),
    ("25", "Interpretation", "Read beside the champion, boosting and NEWS2 on the same patients."),
    ("26", "Limitations", "The limits below."),
    ("27a", "Poor or missing input", "Named in every score; a sample without input is skipped with a reason."),
    ("27b", "What users must do", "Review the named events; the score explains itself and decides nothing."),
    ("27c", "Next steps", "External validation at another site before any use there."),
)  # fmt: skip


def tripod_rows(facts: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return number, topic and answer of every item.

    Raises
    ------
    KeyError
        If a fact that an item needs is missing.
    """
    return [(number, topic, text.format(**facts)) for number, topic, text in ITEMS]
