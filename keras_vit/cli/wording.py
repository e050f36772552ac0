"""Translates the package's messages: options of the command line for arguments."""

import argparse
import re
import shlex

_PHRASES = {
    "choose another `directory` or delete this one": "give `--overwrite`",
    "delete the folder or choose another `directory`": "give `--overwrite`",
    "choose another `directory`": "give `--overwrite`",
}
_QUOTED = r"(?<![\w=])'[^']*'(?!\w)"  # such as names of files; they stay
_VALUE = (
    r"""\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|'[^']*'|"[^"]*"|[^\s,;:(){}'"`]*[^\s,;:(){}'"`.]"""
)
# Advice to name the parts of the data by `splits`.
_SPLITS = r"(?:Name [^:.]*: )?splits=\{[^}]*\}(?: and validation_split=[\d.]*\d)?"


def in_options(message: str, command: argparse.ArgumentParser) -> str:
    """Replaces the arguments in a message by the options of a command.

    Args:
        message: such as "Leave them out with bad_images='skip'".
        command: the parser of a sub-command.
    """
    for phrase, ours in _PHRASES.items():
        message = message.replace(phrase, ours)
    options, positional = _options(command), _positional(command)
    if not options:
        return message
    names = "|".join(sorted(options, key=len, reverse=True))
    given = rf"`?(?<![\w.\-/])(?P<name>{names})=(?P<value>{_VALUE})`?"
    alone = rf"`(?P<alone>{names}|{'|'.join(positional) or '-'})`"

    def replaced(match):
        if name := match["alone"]:
            if name in positional:
                return positional[name]
            return f"`{options[name].option_strings[0]}`"
        if name := match["name"]:
            return _given(options[name], match["value"]) or match[0]
        return match[0]

    return re.sub(f"{_QUOTED}|{alone}|{given}", replaced, message)


def without_splits(message: str, remedy: str) -> str:
    """Replaces each advice to pass `splits` by another remedy, which is said once."""
    message = re.sub(_SPLITS, remedy, message)
    return message.replace(f"{remedy}. {remedy}", remedy)


def _options(command):
    """The options of a parser by the argument that they set."""
    return {
        action.dest: action
        for action in command._actions
        if action.option_strings and action.dest not in ("help", "set", "traceback")
    }


def _positional(command):
    """The names in the usage of a parser's positional arguments, by the argument."""
    return {
        action.dest: action.metavar
        for action in command._actions
        if not action.option_strings and action.metavar
    }


def _given(action, value):
    """An option with its value; `""` if the option cannot say this value."""
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
    """The values of a tuple or list, or the one value."""
    return [part.strip() for part in value.strip("()[]").split(",")]


def _quoted(value):
    """A value quoted for a shell."""
    value = value.strip("'\"")
    return shlex.quote(value) if " " in value else value
