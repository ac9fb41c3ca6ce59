"""README and docs: links lead somewhere, commands and options exist, figures are the results'."""

import argparse
import ast
import contextlib
import importlib
import io
import json
import re
import shlex

import pytest
from helpers.doc_pages import PAGES, ROOT, command_lines, fences

from experiments.rows import BASELINE, FULL
from pspnet_repro.__main__ import main
from pspnet_repro.commands import config_file

RESULTS = ROOT / "experiments" / "results"
TASKS = ("predict", "train", "evaluate", "weights", "caffe-files", "tables", "fidelity", "speed",
         "gpu", "promises")
COMMANDS = ("predict", "evaluate", "train", "check-data", "make-lists", "convert", "export",
            "inspect", "run", "table", "demo")
# Where a program of `pspnet` is started by another one.
STARTED = re.compile(r"torchrun .*-m pspnet_repro ")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


class Parsed(BaseException):
    """A command line was parsed, and its command must not run."""


@pytest.fixture
def parse(monkeypatch, capsys):
    """A function that parses the words of a command of `pspnet`, and fails where it refuses."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, words=None, namespace=None):
        parse_args(parser, words, namespace)
        raise Parsed

    def parse_words(words):
        assert words and words[0] in COMMANDS, f"pspnet has no such command: {words}"
        try:
            main(words)
        except Parsed:
            return
        except SystemExit:
            pass
        pytest.fail(f"refused: pspnet {shlex.join(words)}: {capsys.readouterr().err[-500:]}")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    # The settings files that pages name are not there.
    monkeypatch.setattr(config_file, "_read", lambda *_: ({}, {}))
    return parse_words


def _prose(page):
    """A page without its fences."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"),
                  flags=re.DOTALL | re.MULTILINE)


def _help_texts():
    """The help of every command, together."""
    written = io.StringIO()
    for name in COMMANDS:
        with contextlib.redirect_stdout(written), pytest.raises(SystemExit):
            main([name, "--help"])
    return written.getvalue()


def test_each_task_has_a_page():
    assert {page.stem for page in PAGES} == {"README", "CONTRIBUTING", "CHANGELOG",
                                          "architecture", *TASKS}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/{task}.md)" in readme for task in TASKS)


def test_readme_has_at_most_1200_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


@pages
def test_relative_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        if not link.startswith("https://"):
            assert (page.parent / link).is_file(), link


@pages
def test_fences_have_a_language(page):
    opening = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(opening) % 2 == 0 and not any(opening[1::2])
    assert set(opening[::2]) <= {"sh", "python"}


@pages
def test_commands_in_fences_are_accepted(page, parse):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in command_lines(*fences(page, "sh")):
        words = shlex.split(STARTED.sub("pspnet ", line), comments=True)
        if not words:
            continue
        assert words[0] in ("pspnet", "make"), line
        if words[0] == "pspnet":
            parse(words[1:])
            continue
        for word in words[1:]:
            name, is_variable, _ = word.partition("=")
            wanted = rf"\b{name}\b" if is_variable else rf"^{re.escape(name)}:.*## "
            assert re.search(wanted, makefile, re.MULTILINE), line


@pages
def test_commands_in_the_text_exist(page):
    words = re.findall(r"`(pspnet|make) ([a-z][a-z-]*)", _prose(page))
    for program, name in words:
        if program == "make":
            assert re.search(rf"^{name}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"),
                             re.MULTILINE), name
        else:
            assert name in COMMANDS, name


def test_options_in_the_text_exist():
    known = set(re.findall(r"--[a-z][a-z-]*", _help_texts())) | {
        "--include", "--no-build-isolation", "--no-deps"}  # grep's and pip's
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", _prose(page)))
        assert named <= known, (page.name, named - known)


@pages
def test_python_in_fences_imports_what_exists(page):
    for fence in fences(page, "python"):
        for node in ast.walk(ast.parse(fence)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


def test_pages_name_no_module_files():
    """They name commands and public names: modules move."""
    for page in PAGES:
        named = re.findall(r"(?:pspnet_repro|prototxt_import|experiments)/[\w/]+\.py",
                           page.read_text(encoding="utf-8"))
        assert not named, page.name


def test_readme_gives_the_scenes_leads_of_the_results():
    results = json.loads((RESULTS / "mini-seeds" / "report.json").read_text())["results"]
    by_seed = [{run["seed"]: 100 * run["mean_iou"] for run in results[name]}
               for name in (BASELINE, FULL)]
    leads = [by_seed[1][seed] - by_seed[0][seed] for seed in by_seed[0]]
    words = (f"leads its baseline by {min(leads):.0f} to {max(leads):.0f} points of mean IoU in "
             f"{sum(lead > 0 for lead in leads)} of {len(leads)} seeds")
    assert words in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_gives_the_speed_of_the_results():
    head = (RESULTS / "bench" / "networks.md").read_text().partition("\n")[0]
    share = re.search(r"against the port: (\S+) of its time", head)[1]
    assert f"takes {share} of the time" in (ROOT / "README.md").read_text(encoding="utf-8")
