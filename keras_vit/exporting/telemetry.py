"""The reports of their use that OpenVINO and NNCF send to their makers."""

import contextlib
import os
from collections.abc import Iterator

from keras_vit.download.web import is_offline

# Of a machine that builds and tests; both packages report nothing from there.
_SETTINGS = {"CI": "true", "NNCF_CI": "1"}


@contextlib.contextmanager
def kept_offline() -> Iterator[None]:
    """Within it nothing is reported, if `KERAS_VIT_OFFLINE` forbids the network."""
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
