"""The package's messages in a program's log."""

import logging


class Log:
    """The logger "keras_vit", heard whatever other packages do to logging.

    `logging.config` and packages that use it disable every logger that they do not name;
    a warning that a checkpoint is damaged would then be lost. Who wants to hear less sets
    the logger's level, or a filter.
    """

    def info(self, message: str, *args) -> None:
        """Says what is as it should be."""
        self._say(logging.INFO, message, args)

    def warning(self, message: str, *args) -> None:
        """Says what a user should know and may want to change."""
        self._say(logging.WARNING, message, args)

    def _say(self, level, message, args):
        logger = logging.getLogger("keras_vit")
        logger.disabled = False
        logger.log(level, message, *args, stacklevel=3)


log = Log()
