"""Templates of this room: the page of a sheet, and what is said of certificates."""

from __future__ import annotations

from pathlib import Path

import jinja2

from pipeline_lib.audit.certificate import Certificate, DatasetCertificate
from pipeline_lib.config.names import readable

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline_lib.audit"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.filters |= {
    "percent": lambda share: f"{100 * share:.1f} %",
    "readable": readable,
    "file_name": lambda path: Path(path).name,
}


def say_targets(certificate: Certificate) -> list[str]:
    """Return what is known of each target, as plain text of a sentence or more."""
    return [_say(certificate, "target", found, certificate) for found in certificate.targets]


def say_basis(certificate: Certificate) -> str:
    """Return what the rates are based on, and without labels how to come by some, as plain text."""
    return _say(certificate, "basis", certificate)


def _say(certificate: Certificate, what: str, *arguments: object) -> str:
    kind = "dataset" if isinstance(certificate, DatasetCertificate) else "samples"
    macros = TEMPLATES.get_template("certificate.txt").module
    return " ".join(getattr(macros, f"{kind}_{what}")(*arguments).split())
