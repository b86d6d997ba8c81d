"""The site: `make docs` builds it below build/site, and `make lint` fails on a broken link.

The source folder is the repository, so that the pages link to each other and to files as they do on GitHub.
"""

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "Latent Rebalance"
author = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["authors"][0]["name"]
copyright = author
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "config/*.md", "docs/*.md", "experiments/*.md"]
exclude_patterns = [".*", "build", "dist", "gpu", "results", "tests", "pipeline_lib", "resources"]
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]
nitpicky = True
html_theme = "furo"
html_title = project
html_show_sourcelink = False


def show_contents(_: Sphinx, name: str, source: list[str]) -> None:
    """Take the list of pages out of the comment that hides it on GitHub."""
    if name == root_doc:
        source[0] = source[0].replace("<!--", "").replace("-->", "")


def setup(app: Sphinx) -> None:
    """Connect the hook of the front page."""
    app.connect("source-read", show_contents)
