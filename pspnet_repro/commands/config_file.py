"""The settings file of --config: values of options from TOML, or from a training's settings.json.

Nothing here is slow to import.
"""

import argparse
import json
import sys

from pspnet_repro.commands.options import path
from pspnet_repro.commands.parser import Parser, nearest
from pspnet_repro.errors import UsageError, UserError, first_line, printable
from pspnet_repro.files import refuse_pipe
from pspnet_repro.model.settings import NetworkSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What settings.json holds under the name of its option.
_SETTINGS = ("zero_is_void", "crop_size", "batch_size", "iter_size", "max_iter", "base_lr",
             "aux_weight", "guidance", "seed", "threads", "freeze_bn", "freeze_backbone",
             "precision")


def add_config(parser: Parser) -> None:
    """Give a command the option --config, whose file sets the defaults of the others."""
    parser.add_argument("--config", type=path, metavar="FILE",
                        help="settings file: TOML with lines OPTION = VALUE, such as max_iter = "
                             "2000, or settings.json of a training, which is then repeated. What "
                             "the command line says comes first; default: none")
    # What settings.json says that no option does, with the option on which it depends.
    parser.set_defaults(recorded={})
    parser.prepare = _apply


def _apply(parser, words):
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", nargs="?")
    file = finder.parse_known_args(words)[0].config
    if not file:
        return
    actions = {option[2:].replace("-", "_"): action for action in parser._actions
               for option in action.option_strings if option.startswith("--")}
    values, recorded = _read(path(file), actions)
    for name in ("help", "config"):
        del actions[name]
    seen = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in actions:
            near = nearest(name, actions)
            raise UsageError(f"{file}: {printable(key)} is no option of train, "
                             "`pspnet train --help` lists them"
                             + f"; did you mean {near}?" * bool(near))
        if name in seen:
            raise UsageError(f"{file}: {seen[name]} and {key} are the same option: leave one out")
        seen[name] = key
        action = actions[name]
        parser.set_defaults(**{action.dest: _converted(action, file, key, value)})
        action.required = False
    parser.set_defaults(recorded={
        key: (value, on, parser.get_default(on)) for key, (value, on) in recorded.items()})


def _converted(action, file, key, value):
    """The value of an option as the command line would have it. Raises UsageError."""
    def refuse(rule):
        raise UsageError(f"{file}: {key} = {json.dumps(value, default=str)}: {rule}")

    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list) and all(type(part) is int for part in value):
        text = ",".join(map(str, value))
    elif isinstance(value, (str, int, float)):
        text = str(value)
    else:
        refuse("must be a number, text in quotes, true or false, or a list of whole numbers")
    try:
        converted = action.type(text) if action.type else text
    except argparse.ArgumentTypeError as error:
        refuse(str(error))
    except ValueError:
        refuse(f"must be of type {action.type.__name__}")
    kind, rule = next((kind, rule) for result, kind, rule in _KINDS
                      if isinstance(converted, result))
    if not isinstance(value, kind) or isinstance(value, bool) != isinstance(converted, bool):
        refuse(f"must be {rule}")
    if action.choices is not None and converted not in action.choices:
        refuse(f"must be one of {', '.join(map(str, action.choices))}")
    return converted


# What an option's value may be written as, by what it becomes.
_KINDS = ((bool, bool, "true or false"),
          ((int, float), (int, float), "a number, without quotes"),
          (tuple, (list, str), "a list of whole numbers, such as [1, 2]"),
          (object, str, "text in quotes"))


def _read(file, options):
    """({option: value}, {what no option says: (value, option on which it depends or None)}). Raises
    UserError where there is no such file, or it is neither TOML nor settings.json."""
    refuse_pipe(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):
            return _of_settings(json.loads(text), file, options)
        return tomllib.loads(text), {}
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: cannot be read as a settings file: {first_line(error)}; save it "
                        "as text in UTF-8: TOML, or settings.json of a training") from error
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file; --config takes TOML with lines such as max_iter = "
                        "2000, or settings.json of a training") from error
    except (OSError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as a settings file: {first_line(error)}; --config "
                        "takes TOML or settings.json of a training") from error
    except ValueError as error:
        raise UserError(f"{file}: not a settings file: {first_line(error)}; write lines such as "
                        'max_iter = 2000 or guidance = "full"') from error


def _of_settings(settings, file, options):
    model = settings.get("model")
    if not isinstance(model, dict) or not {"list_sha256", "max_iter"} <= settings.keys():
        raise UserError(f"{file}: not settings.json of a training: lacks model, list_sha256 or "
                        "max_iter; write other settings as TOML, max_iter = 2000")
    values = {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}
    named, switches = ([name for name in NetworkSettings.arguments() if prefix + name in options]
                       for prefix in ("", "no_"))
    values |= {name: model[name] for name in named if model.get(name) is not None}
    # What is no bool is refused as any option's value is.
    values |= {f"no_{name}": not model[name] if isinstance(model[name], bool) else model[name]
               for name in switches if model.get(name) is not None}
    recorded = {name: (value, None) for name, value in settings.items()
                if name not in (*_SETTINGS, "model", "augmentation")}
    recorded |= {f"model.{name}": (value, "arithmetic" if name == "head" else None)
                 for name, value in model.items() if name not in (*named, *switches)}
    augmentation = settings.get("augmentation")
    if augmentation is None:
        return values, recorded
    if not isinstance(augmentation, dict):
        raise UserError(f"{file}: not settings.json of a training: augmentation must be a "
                        f"dictionary, got {json.dumps(augmentation)}; write other settings as "
                        "TOML, max_iter = 2000")
    values["augmentation"] = ("none" if not augmentation.get("scales") else
                              "all" if augmentation.get("blur") else "mirror-resize")
    values |= {name: augmentation[name] for name in ("padding",) if name in augmentation}
    recorded |= {f"augmentation.{name}": (value, "augmentation")
                 for name, value in augmentation.items() if name != "padding"}
    return values, recorded
