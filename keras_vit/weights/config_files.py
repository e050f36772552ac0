"""The JSON files beside a checkpoint."""

import os
from typing import Any

from keras_vit.weights.files.tensor_file import parse_json


def read_config(path: str) -> dict[str, Any] | None:
    """The `config.json` in the folder of a file, or None without one.

    It has the `task.json` of KerasHub and the `preprocessor_config.json` of transformers
    beside it as `"task"` and `"preprocessor_config"`; None where there is no such file.

    Raises:
        ValueError: if one of the files is no JSON dictionary.
    """
    folder = os.path.dirname(path)
    config = _read_json(os.path.join(folder, "config.json"))
    if config is not None:
        for name in ("task", "preprocessor_config"):
            config[name] = _read_json(os.path.join(folder, f"{name}.json"))
    return config


def _read_json(path):
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            content = parse_json(file.read())
        if not isinstance(content, dict):
            raise ValueError("it is no dictionary")
    except ValueError as error:
        raise ValueError(f"{path!r} beside the checkpoint is damaged: {error}") from error
    return content
