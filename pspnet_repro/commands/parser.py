"""The argument parser of all commands: it shows defaults and examples, and names the nearest."""

import argparse
import difflib
import re


class _Help(argparse.HelpFormatter):
    """Help with every default, and the lines of examples as they are written."""

    def _get_help_string(self, action):
        shown = action.help or ""
        wants = action.option_strings and action.nargs != 0 and not action.required
        if not wants or "default" in shown or action.default in (None, argparse.SUPPRESS):
            return shown
        value = action.default
        value = str(value).lower() if isinstance(value, bool) else value
        text = (",".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else
                str(value))
        return f"{shown}; default: {text.replace('%', '%%')}"

    def _fill_text(self, text, width, indent):
        if text.startswith("examples:"):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose options are written out and whose refusals name the nearest.

    Args:
        examples: whole command lines, shown at the end of the help.
        others: as argparse.ArgumentParser.

    Attributes:
        prepare: called with the parser and the words before they are parsed.
    """

    prepare = staticmethod(lambda parser, words: None)

    def __init__(self, *, examples=(), **others):
        if examples:
            others["epilog"] = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        super().__init__(allow_abbrev=False, formatter_class=_Help, **others)

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's; what a command's parser does not know it refuses itself."""
        self.prepare(self, args)
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message):
        """Exit with code 2 and one line; a word that is not known comes with the nearest."""
        super().error(message + self._hint(message))

    def _hint(self, message):
        word = re.match(r"unrecognized arguments: .*?(-[^\s=]+)", message)
        if word:
            return nearest(word.group(1), [name for action in self._actions
                                            for name in action.option_strings])
        word = re.search(r"invalid choice: '([^']*)'", message)
        if word:
            return nearest(word.group(1), [str(choice) for action in self._actions
                                            for choice in action.choices or ()])
        return ""


def nearest(word, known):
    """"; did you mean ...?" with the nearest of known words, or ""."""
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
