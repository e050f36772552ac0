"""Telemetry of OpenVINO and NNCF, which report their use to their makers."""

import contextlib
import os
from collections.abc import Iterator

from keras_vit.download.web import is_offline

# Both packages report nothing from continuous integration.
_SETTINGS = {"CI": "true", "NNCF_CI": "1"}


@contextlib.contextmanager
def kept_offline() -> Iterator[None]:
    """Disables telemetry in a block of code, if `KERAS_VIT_OFFLINE` forbids the network."""
    if not is_offline():
        yield
        return
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
