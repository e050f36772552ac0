"""The package's warnings are heard, whatever others do to logging."""

import logging
import logging.config
from pathlib import Path

import pytest

import keras_vit
from keras_vit.log import log

pytestmark = pytest.mark.one_backend


@pytest.fixture
def logger():
    """The logger as it was before, afterwards."""
    logger = logging.getLogger("keras_vit")
    before = logger.level, logger.disabled
    yield logger
    logger.setLevel(before[0])
    logger.disabled = before[1]


def test_warnings_outlive_a_configuration_that_disables_other_loggers(logger, caplog):
    config = {"version": 1, "loggers": {"another": {"level": "INFO"}}}
    logging.config.dictConfig(config)
    assert logger.disabled  # a warning of it would be lost
    log.warning("The checkpoint %s is damaged", "a")
    assert caplog.messages == ["The checkpoint a is damaged"]
    assert caplog.records[0].funcName.startswith("test_warnings_outlive")


def test_every_room_says_what_it_has_to_say_so():
    folder = Path(keras_vit.__file__).parent
    direct = [p.name for p in folder.rglob("*.py") if "getLogger(" in p.read_text("utf-8")]
    assert sorted(direct) == ["log.py", "writers.py"]  # which quietens other packages'


def test_warnings_outlive_other_packages(logger, caplog):
    pytest.importorskip("nncf")  # which configures logging as it is imported
    import absl.logging

    absl.logging.use_absl_handler()
    try:
        log.warning("heard")
    finally:
        logging.root.removeHandler(absl.logging.get_absl_handler())
    assert caplog.messages == ["heard"]


def test_who_wants_to_hear_less_sets_the_level(logger, caplog):
    logger.setLevel(logging.ERROR)
    log.warning("not heard")
    assert caplog.messages == []
