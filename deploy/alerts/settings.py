"""Whom to tell, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Alerts(BaseModel):
    """Who is told when a night fails, scores are late, a model alarms, or candidates wait for a decision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    emails: list[str] = Field(default_factory=list, description="Addresses that get an e-mail.")
    sender: str = Field("nightingale@localhost", description="Sender of the e-mails.")
    smtp_host: str | None = Field(None, description="Mail server; needed where emails are given.")
    smtp_port: int = Field(25, ge=1, le=65_535, description="Port of the mail server.")
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "none", description="Encryption towards the mail server."
    )
    smtp_user: str | None = Field(None, description="User at the mail server; unset, none.")
    smtp_password_env: str | None = Field(None, description="Environment variable with that user's password.")
    webhook_url_env: str | None = Field(
        None,
        description="Environment variable with the address to which a JSON object is posted; such addresses are "
        "secrets.",
    )
    ui_url: str | None = Field(None, description="Address of Airflow's UI, for links in messages.")

    @model_validator(mode="after")
    def _complete(self) -> Alerts:
        if self.emails and not self.smtp_host:
            raise ValueError("alerts.emails needs alerts.smtp_host")
        return self
