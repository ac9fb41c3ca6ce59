"""README and the pages of docs: their code."""

import re

from helpers.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md",
         *sorted((ROOT / "docs").glob("*.md"))]


def fences(page, language):
    """The texts of a page's code fences in a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def command_lines(*shell_fences):
    """The lines of shell fences, continued ones joined."""
    return [line for fence in shell_fences
            for line in fence.replace("\\\n", " ").splitlines() if line.strip()]
