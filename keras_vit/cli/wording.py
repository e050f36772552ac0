"""Messages of the package in the words of the command line: options for arguments."""

import argparse
import re
import shlex

# Arguments whose option has another name.
_OTHERS = {"learning_rate": "base_learning_rate", "ema": "ema_momentum"}
_PHRASES = {
    "choose another `directory` or delete this one": "give `--overwrite`",
    "delete the folder or choose another `directory`": "give `--overwrite`",
    "choose another `directory`": "give `--overwrite`",
}
_QUOTED = r"(?<![\w=])'[^']*'(?!\w)"  # names of files, which stay as they are
_VALUE = (
    r"""\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|'[^']*'|"[^"]*"|[^\s,;:(){}'"`]*[^\s,;:(){}'"`.]"""
)
# Advice to say which part of the data is which split.
_SPLITS = r"(?:Name [^:.]*: )?splits=\{[^}]*\}(?: and validation_split=[\d.]*\d)?"


def in_options(message: str, command: argparse.ArgumentParser) -> str:
    """A message with the options of a command in place of Python's arguments.

    Args:
        message: such as "Leave them out with bad_images='skip'".
        command: the parser of a sub-command.
    """
    for phrase, ours in _PHRASES.items():
        message = message.replace(phrase, ours)
    options = _options(command)
    if not options:
        return message
    names = "|".join(sorted(options, key=len, reverse=True))
    given = rf"`?(?<![\w.\-/])(?P<name>{names})=(?P<value>{_VALUE})`?"
    alone = rf"`(?P<alone>{names})`"

    def replaced(match):
        if name := match["alone"]:
            return f"`{options[name].option_strings[0]}`"
        if name := match["name"]:
            return _given(options[name], match["value"]) or match[0]
        return match[0]

    return re.sub(f"{_QUOTED}|{alone}|{given}", replaced, message)


def without_splits(message: str, remedy: str) -> str:
    """A message with a remedy, said once, in place of each advice to give `splits`."""
    message = re.sub(_SPLITS, remedy, message)
    return message.replace(f"{remedy}. {remedy}", remedy)


def _options(command):
    """The actions of a parser by the name of the argument that they set."""
    options = {}
    for action in command._actions:
        if action.option_strings and action.dest not in ("help", "set", "traceback"):
            options[_OTHERS.get(action.dest, action.dest)] = action
            if action.dest == "split" and action.metavar == "NAME=PART":
                options["splits"] = action
    return options


def _given(action, value):
    """An option with its value; nothing where the option says something else."""
    option = action.option_strings[0]
    if action.nargs == 0:  # a flag
        return f"`{option}`" if value == str(action.const) else ""
    if value == "None":
        return f"no `{option}`"
    if value.startswith("{"):
        pairs = re.findall(rf"'(\w+)': ({_VALUE})", value)
        return " ".join(
            f"{option} {name}={_quoted(part)}"
            for name, parts in pairs
            for part in _parts(parts)
        )
    if value.startswith(("(", "[")):  # several values of one option
        return f"{option} {' '.join(_parts(value))}"
    return f"{option} {_quoted(value)}"


def _parts(value):
    """The values of a tuple or list, or the one that there is."""
    return [part.strip() for part in value.strip("()[]").split(",")]


def _quoted(value):
    """A value as a shell takes it."""
    value = value.strip("'\"")
    return shlex.quote(value) if " " in value else value
