"""Ways to people: e-mail by SMTP, JSON by webhook."""

from __future__ import annotations

import logging
import os
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage

import httpx

from deploy.alerts.message import Message
from deploy.alerts.settings import Alerts

log = logging.getLogger(__name__)
TIMEOUT = 20.0


def send(message: Message, alerts: Alerts, *, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Send a message by every way that the site set.

    A way that fails does not keep the others from being tried.

    Returns
    -------
    dict
        ``email`` and ``webhook`` to ``sent``, or to the class of the error: its text may hold an address.
    """
    variables = os.environ if environment is None else environment
    ways = {}
    if alerts.emails:
        ways["email"] = lambda: send_mail(message, alerts, variables)
    if alerts.webhook_url_env:
        ways["webhook"] = lambda: post(message, alerts, variables)
    outcomes = {}
    for name, way in ways.items():
        try:
            way()
            outcomes[name] = "sent"
        except (OSError, smtplib.SMTPException, httpx.HTTPError, KeyError, ValueError) as error:
            outcomes[name] = type(error).__name__
            log.error("alert by %s was not sent: %s", name, type(error).__name__)
    return outcomes


def send_mail(message: Message, alerts: Alerts, environment: Mapping[str, str]) -> None:
    """Send an e-mail to every address of the site.

    Raises
    ------
    OSError, smtplib.SMTPException
        If the mail server cannot be reached or refuses.
    """
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject, alerts.sender, ", ".join(alerts.emails)
    mail.set_content(message.text)
    kind = smtplib.SMTP_SSL if alerts.smtp_security == "tls" else smtplib.SMTP
    with kind(str(alerts.smtp_host), alerts.smtp_port, timeout=TIMEOUT) as server:
        if alerts.smtp_security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if alerts.smtp_user:
            server.login(alerts.smtp_user, environment[str(alerts.smtp_password_env)])
        server.send_message(mail)


def post(message: Message, alerts: Alerts, environment: Mapping[str, str]) -> None:
    """Post a message to the site's webhook.

    Raises
    ------
    KeyError
        If the named variable is not set.
    httpx.HTTPError
        If the address cannot be reached or answers with an error.
    """
    address = environment[str(alerts.webhook_url_env)]
    httpx.post(address, json=message.to_dict(), timeout=TIMEOUT, trust_env=False).raise_for_status()
