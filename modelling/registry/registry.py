"""The registry of models: what there is, which one scores, and how it came to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from modelling.errors import PromotionRefusedError, RegistryError
from modelling.registry.objects import ModelObjects
from modelling.registry.records import ALLOWED, Change, Finding, ModelRecord, Provenance, State, Transition
from modelling.registry.rules import PromotionRules, judge_candidate
from modelling.registry.tables import ModelRow, TransitionRow, upgrade

SHORTEST_PREFIX = 6


class Registry:
    """Models in SQL and in folders by digest.

    Parameters
    ----------
    engine
        Database; its tables are made or migrated.
    root
        Folder of the model folders.
    """

    def __init__(self, engine: Engine, root: Path) -> None:
        upgrade(engine)
        self._engine = engine
        self.objects = ModelObjects(root)

    def register(
        self,
        folder: Path,
        *,
        provenance: Provenance,
        evidence: Mapping[str, Any],
        by: str,
        why: str,
        now: datetime,
    ) -> ModelRecord:
        """Take a model folder as candidate; a model that is known keeps its state and gets the new evidence.

        Parameters
        ----------
        evidence
            From :func:`modelling.registry.evidence.gather_evidence`.
        by, why
            Who registers and for what reason; kept in the history.

        Raises
        ------
        CheckpointFormatError, CheckpointDigestError
            If the folder cannot be trusted.
        """
        stored, files = self.objects.take(folder)
        config, card = stored.config, stored.card
        measured = {
            "metrics": dict(evidence.get("metrics") or {}),
            "subgroups": list(evidence.get("subgroups") or []),
            "evidence": dict(evidence),
        }
        with Session(self._engine) as session, session.begin():
            row = session.get(ModelRow, stored.digest)
            before = None if row is None else State(row.state)
            if row is None:
                row = ModelRow(
                    digest=stored.digest,
                    task=config["task"],
                    name=card["name"],
                    version=card["version"],
                    kind=config["model"],
                    state=str(State.CANDIDATE),
                    registered=now,
                    files=files,
                    config={key: config.get(key) for key in ("model", "seed", "training", "thresholds")},
                    code_version=str(config.get("code_version", "unknown")),
                    catalogue_digest=str(config.get("catalogue_digest")),
                    data_version=provenance.data_version,
                    data_fingerprint=provenance.data_fingerprint,
                    calibration={
                        "calibration": config.get("calibration"),
                        "conformal": config.get("conformal"),
                        "thresholds": config.get("thresholds"),
                    },
                    **measured,
                )
                session.add(row)
                session.flush()
            else:
                for name, value in measured.items():
                    setattr(row, name, value)
            session.add(_transition(row, Change.REGISTER, before, None, by=by, why=why, now=now))
        return self.get(stored.digest)

    def get(self, name: str) -> ModelRecord:
        """Return a model by its digest or by the first six or more characters of it.

        Raises
        ------
        RegistryError
            If none or several are meant.
        """
        with Session(self._engine) as session:
            return _record(_find(session, name))

    def find(self, *, task: str | None = None, state: State | None = None) -> list[ModelRecord]:
        """Return models, newest first."""
        query = select(ModelRow).order_by(ModelRow.registered.desc(), ModelRow.digest)
        if task is not None:
            query = query.where(ModelRow.task == task)
        if state is not None:
            query = query.where(ModelRow.state == str(state))
        with Session(self._engine) as session:
            return [_record(row) for row in session.scalars(query)]

    def champion(self, task: str) -> ModelRecord | None:
        """Return the model that scores a task, if one was promoted."""
        return next(iter(self.find(task=task, state=State.CHAMPION)), None)

    def folder(self, name: str) -> Path:
        """Return a model's folder, every file of it checked against its recorded SHA-256.

        Raises
        ------
        CheckpointFormatError, CheckpointDigestError
            If it is not as it was registered.
        """
        record = self.get(name)
        return self.objects.verified(record.digest, record.files)

    def history(self, *, digest: str | None = None, task: str | None = None) -> list[Transition]:
        """Return changes of state, oldest first."""
        query = select(TransitionRow).order_by(TransitionRow.number)
        if digest is not None:
            query = query.where(TransitionRow.digest == digest)
        if task is not None:
            query = query.join(ModelRow, ModelRow.digest == TransitionRow.digest).where(ModelRow.task == task)
        with Session(self._engine) as session:
            return [_seen(row) for row in session.scalars(query)]

    def judge(self, name: str, rules: PromotionRules) -> list[Finding]:
        """Return what the promotion rules say of a model, its file included; nothing is changed."""
        record = self.get(name)
        champion = self.champion(record.task)
        findings = judge_candidate(
            record.evidence, rules, champion=champion.digest if champion else None, digest=record.digest
        )
        try:
            self.objects.verified(record.digest, record.files)
            intact = Finding(rule="intact", passed=True, reason="every file has its recorded SHA-256")
        except Exception as error:  # whatever is wrong with the folder is a reason, not a crash
            intact = Finding(rule="intact", passed=False, reason=str(error))
        return [intact, *findings]

    def promote(
        self, name: str, *, rules: PromotionRules, by: str, why: str, now: datetime
    ) -> tuple[ModelRecord, list[Finding]]:
        """Make a model champion if every rule holds; the champion before it is retired.

        Raises
        ------
        PromotionRefusedError
            With every finding; the refused attempt is recorded too.
        RegistryError
            If nobody approves, or the model's state does not allow it.
        """
        _named(by, why)
        if rules.approvers and by not in rules.approvers:
            raise RegistryError(f"{by!r} is not among those who may approve; see promotion.approvers")
        record = self.get(name)
        findings = self.judge(record.digest, rules)
        broken = [finding for finding in findings if not finding.passed]
        if broken:
            with Session(self._engine) as session, session.begin():
                row = _find(session, record.digest)
                refused = _transition(
                    row, Change.PROMOTE, record.state, None, by=by, why=f"refused: {why}", now=now
                )
                refused.findings = [finding.to_dict() for finding in findings]
                session.add(refused)
            reasons = "; ".join(f"{finding.rule}: {finding.reason}" for finding in broken)
            raise PromotionRefusedError(f"model {record.digest[:12]} is not promoted. {reasons}", findings)
        return self._crown(record.digest, Change.PROMOTE, findings, by=by, why=why, now=now), findings

    def rollback(self, task: str, *, by: str, why: str, now: datetime) -> ModelRecord | None:
        """Retire the champion and bring back the one it had replaced; None means the shipped weights.

        Raises
        ------
        RegistryError
            If there is no champion.
        CheckpointFormatError, CheckpointDigestError
            If the former champion's folder is not as it was; nothing is changed then.
        """
        _named(by, why)
        champion = self.champion(task)
        if champion is None:
            raise RegistryError(f"task {task!r} has no champion to roll back")
        changes = [
            item
            for item in self.history(digest=champion.digest)
            if item.kind is Change.PROMOTE and item.after is State.CHAMPION
        ]
        former = changes[-1].replaced if changes else None
        if former is None:
            self._move(champion.digest, Change.RETIRE, by=by, why=f"rollback: {why}", now=now)
            return None
        self.folder(former)
        return self._crown(former, Change.ROLLBACK, [], by=by, why=why, now=now)

    def shadow(self, name: str, *, by: str, why: str, now: datetime) -> ModelRecord:
        """Let a model score every night without writing to the record."""
        self.folder(name)
        return self._move(self.get(name).digest, Change.SHADOW, by=by, why=why, now=now)

    def retire(self, name: str, *, by: str, why: str, now: datetime) -> ModelRecord:
        """Take a model out of use; its folder stays."""
        return self._move(self.get(name).digest, Change.RETIRE, by=by, why=why, now=now)

    def _move(self, digest: str, change: Change, *, by: str, why: str, now: datetime) -> ModelRecord:
        _named(by, why)
        with Session(self._engine) as session, session.begin():
            row = _find(session, digest)
            before, row.state = State(row.state), _after(row, change)
            session.add(_transition(row, change, before, None, by=by, why=why, now=now))
        return self.get(digest)

    def _crown(
        self, digest: str, change: Change, findings: list[Finding], *, by: str, why: str, now: datetime
    ) -> ModelRecord:
        with Session(self._engine) as session, session.begin():
            row = _find(session, digest)
            before, after = State(row.state), _after(row, change)
            former = session.scalars(
                select(ModelRow).where(ModelRow.task == row.task, ModelRow.state == str(State.CHAMPION))
            ).first()
            if former is not None:
                former.state = str(State.RETIRED)
                session.add(
                    _transition(
                        former,
                        Change.RETIRE,
                        State.CHAMPION,
                        None,
                        by=by,
                        why=f"{change} of {digest[:12]}: {why}",
                        now=now,
                    )
                )
                session.flush()  # the old champion goes first: the database allows one only
            row.state = after
            made = _transition(
                row, change, before, former.digest if former else None, by=by, why=why, now=now
            )
            made.findings = [finding.to_dict() for finding in findings]
            session.add(made)
        return self.get(digest)


def _named(by: str, why: str) -> None:
    if not by.strip() or not why.strip():
        raise RegistryError("a change of state needs a person (--by) and a reason (--why)")


def _after(row: ModelRow, change: Change) -> str:
    sources, target = ALLOWED[change]
    if State(row.state) not in sources:
        raise RegistryError(f"model {row.digest[:12]} is {row.state}: {change} is not possible")
    return str(target)


def _find(session: Session, name: str) -> ModelRow:
    if len(name) < SHORTEST_PREFIX or not all(letter in "0123456789abcdef" for letter in name):
        raise RegistryError(f"{name!r} is not a digest or the first {SHORTEST_PREFIX} characters of one")
    rows = session.scalars(select(ModelRow).where(ModelRow.digest.startswith(name)).limit(2)).all()
    if not rows:
        raise RegistryError(f"no model {name!r}; `nightingale models list` shows what there is")
    if len(rows) > 1:
        raise RegistryError(f"several models begin with {name!r}; give more of the digest")
    return rows[0]


def _transition(
    row: ModelRow,
    change: Change,
    before: State | None,
    replaced: str | None,
    *,
    by: str,
    why: str,
    now: datetime,
) -> TransitionRow:
    return TransitionRow(
        digest=row.digest,
        kind=str(change),
        before=None if before is None else str(before),
        after=row.state,
        replaced=replaced,
        moment=now,
        who=by,
        why=why,
        findings=[],
    )


def _record(row: ModelRow) -> ModelRecord:
    fields = {name: getattr(row, name) for name in ModelRecord.__dataclass_fields__}
    return ModelRecord(**{**fields, "state": State(row.state)})


def _seen(row: TransitionRow) -> Transition:
    return Transition(
        digest=row.digest,
        kind=Change(row.kind),
        before=None if row.before is None else State(row.before),
        after=State(row.after),
        replaced=row.replaced,
        moment=row.moment,
        who=row.who,
        why=row.why,
        findings=row.findings,
    )
