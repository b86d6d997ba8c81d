"""How figures and names are written on pages, cards and figures, and the templates that are filled with them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import PartRegion, RateRule, Rebalance
from pipeline_lib.config.names import readable
from pipeline_lib.evaluation.results import Interval, Measured
from pipeline_lib.rebalance.groups import group_name

#: Formats of a rate and of a gap; `z` writes no minus sign before 0.
RATE, GAP = "z.2f", "+z.2f"
NO_BREAK, RAISED = "\N{NO-BREAK SPACE}", str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

#: Between which of more than two groups the gap is.
MANY_GROUPS = "the rate farthest above its target minus the one farthest below"


def rate_text(rate: Interval | Estimate, style: str = RATE) -> str:
    """Write a rate with its interval, if there is one: `0.58 [0.52, 0.63]`."""
    value, low, high = rate.estimate if isinstance(rate, Interval) else rate
    if math.isnan(value):
        return "unknown"
    return f"{value:{style}}" if low == high else f"{value:{style}} [{low:{style}}, {high:{style}}]"


def gap_text(gap: Interval | Estimate) -> str:
    """Write a gap with its interval: `+0.58 [+0.52, +0.63]`."""
    return rate_text(gap, GAP)


def percent(share: float | None) -> str:
    """Write a share in percent; nothing for None."""
    return "" if share is None else f"{100 * share:.1f} %"


def share_text(share: float) -> str:
    """Write a share with two digits, rounded down, so that 0.949 does not appear to reach 0.95."""
    return f"{math.floor(round(share * 100, 6)) / 100:.2f}"


def digits_text(value: float) -> str:
    """Write a figure with three significant digits and no exponent: `0.0123`, `1.50`, `24.7`, `1234`."""
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, decimals)}f}"


def distance_text(measured: Measured) -> str:
    """Write a Fréchet distance, small ones with a power of ten: `3.79 × 10⁻⁵`, with spaces that do not break."""
    value = measured.value or 0.0
    exponent = math.floor(math.log10(value)) if 0 < value < 0.1 else 0
    digits = digits_text(value / 10.0**exponent)
    return f"{digits}{NO_BREAK}×{NO_BREAK}10{str(exponent).translate(RAISED)}" if exponent else digits


def cell_text(value: object) -> str:
    """Write a cell of a table, with four significant digits and no exponent; a dash for nothing."""
    if isinstance(value, float | np.floating):
        return "–" if math.isnan(value) else np.format_float_positional(value, 4, fractional=False, trim="-")
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def rates_text(rules: Sequence[RateRule]) -> str:
    """Write rates: `smiling 0.5 among “long hair” images and smiling 0.5 among “not long hair” images`."""
    return " and ".join(
        f"{readable(rule.attribute)} {rule.rate:g} among “{readable(group_name(rule.where))}” images" for rule in rules
    )


def groups_text(targets: Rebalance) -> str:
    """Name the groups between which the gap of a section with one attribute is: `long hair minus not long hair`."""
    if len(targets.targets) > 2:
        return MANY_GROUPS
    return " minus ".join(readable(group_name(target.where)) for target in targets.targets)


def regions_text(targets: Rebalance) -> str:
    """Name what is swapped in running text: `mouth`, or `mouth (for “smiling”) or eyes (for “eyeglasses”)`."""
    named = {
        attribute: readable(str(region)) if isinstance(region, PartRegion) else "rectangle"
        for attribute, region in targets.regions_by_attribute.items()
    }
    if len(named) == 1:
        return next(iter(named.values()))
    return " or ".join(f"{region} (for “{readable(attribute)}”)" for attribute, region in named.items())


def code_text(text: str) -> Markup:
    """Escape plain text for HTML, and set what stands between backticks as code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))


_PAGES = Environment(
    loader=PackageLoader("pipeline_lib.report"),
    autoescape=select_autoescape(["html.j2"], default_for_string=False),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
_PAGES.filters |= {
    "cell": cell_text,
    "code": code_text,
    "digits": digits_text,
    "distance": distance_text,
    "gap": gap_text,
    "number": "{:,}".format,
    "percent": percent,
    "rate": rate_text,
    "rates": rates_text,
    "readable": readable,
    "regions": regions_text,
    "share": share_text,
}
_PAGES.globals |= {"group_name": group_name}
_CARDS = _PAGES.overlay(trim_blocks=True, lstrip_blocks=True)  # lines of Markdown count


def render(template: str, **values: object) -> str:
    """Fill a template of `report/templates`; a value that is missing is an error."""
    pages = _PAGES if template.endswith(".html.j2") else _CARDS
    return pages.get_template(template).render(values)
