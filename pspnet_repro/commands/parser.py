"""The argument parser of all commands: it shows defaults and examples, and names the nearest."""

import argparse
import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from pspnet_repro.errors import printable, say

Commands = argparse._SubParsersAction  # what add_subparsers gives
_METAVARS = {int: "N", float: "NUMBER"}


def _metavar(action):
    """The word that stands for an option's value, which its type may bring; or None."""
    return action.metavar or getattr(action.type, "metavar", _METAVARS.get(action.type))


class _Help(argparse.HelpFormatter):
    """Help with every default, and the lines of examples as they are written."""

    def _get_help_string(self, action):
        shown = action.help or ""
        wants = action.option_strings and action.nargs != 0 and not action.required
        if not wants or "default" in shown or action.default in (None, argparse.SUPPRESS):
            return shown
        value = action.default
        text = (",".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else
                str(value).lower() if isinstance(value, bool) else str(value))
        return f"{shown}; default: {text.replace('%', '%%')}"

    def _get_default_metavar_for_optional(self, action):
        return _metavar(action) or super()._get_default_metavar_for_optional(action)

    def _fill_text(self, text, width, indent):
        if text.startswith("examples:"):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose options are written out and whose refusals are short and name the
    nearest.

    Args:
        examples: whole command lines, shown at the end of the help.

    Attributes:
        prepare: called with the parser and the words before they are parsed.
    """

    prepare = staticmethod(lambda parser, words: None)

    def __init__(self, *, examples: Sequence[str] = (), **others):
        if examples:
            others["epilog"] = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        super().__init__(allow_abbrev=False, formatter_class=_Help, **others)
        # argparse's own takes -1,2,3 for an option.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_known_args(
            self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; what a command's parser does not know it refuses itself."""
        words = list(sys.argv[1:] if args is None else args)
        # Before argparse finds that a required option is missing, which may be the misspelt one.
        unknown = [f"unknown option {name}" + _hint(": ", name, self._option_string_actions)
                   for name in self._unknown_options(words)]
        if unknown:
            self.error("; ".join(unknown))
        self.prepare(self, words)
        namespace, left = super().parse_known_args(words, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}{self._commas(words, left)}")
        return namespace, left

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, one line, and one that names the help."""
        say(f"error: {printable(message + self._choice(message))}\nsee {self.prog} --help")
        sys.exit(2)

    def _unknown_options(self, words):
        """Names of options among words that this parser does not have."""
        for word in words:
            name = word.partition("=")[0]
            if word == "--" or self._subparsers and not word.startswith("-"):
                return  # what follows are values, or the command's
            is_option = re.match("--?[A-Za-z]", word) and " " not in name
            # -oVALUE is -o VALUE, but not where it reads as a long name.
            joined = word[:2] in self._option_string_actions and (
                f"-{name}" not in self._option_string_actions)
            if is_option and name not in self._option_string_actions and not joined:
                yield name

    def _choice(self, message):
        """The nearest of the choices that the message says a word is not one of."""
        match = re.match("argument ([^:]+): invalid choice: '([^']*)'", message)
        if not match:
            return ""
        known = [str(choice) for action in self._actions for choice in action.choices or ()
                 if match[1] in ("/".join(action.option_strings), action.metavar)]
        known += [] if match[1].startswith("-") else self._option_string_actions
        return _hint("; ", match[2], known)

    def _commas(self, words, left):
        """How a list is written, where words that are left stand behind an option of one."""
        for place, word in enumerate(words, 1):
            name, equals, value = word.partition("=")
            action = self._option_string_actions.get(name)
            if action is not None and "," in str(_metavar(action)):
                values = [value] * bool(equals) + list(itertools.takewhile(
                    lambda other: not other.startswith("-"), words[place:]))
                if left[0] in values[1:]:
                    return (f"; separate the values of {name} by commas, without spaces: {name} "
                            f"{','.join(each.strip(',') for each in values)}")
        return ""


def _hint(before, word, known):
    near = nearest(word, known)
    return f"{before}did you mean {near}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The nearest of known words, whatever dashes they begin with: one that the word begins, else
    one that is spelt alike, else None."""
    names = {name.lstrip("-"): name for name in known}
    word = word.lstrip("-")
    begun = [name for name in names if word and name.startswith(word)]
    near = difflib.get_close_matches(word, begun or names, 1, 0.0 if begun else 0.6)
    return names[near[0]] if near else None
