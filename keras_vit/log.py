"""Log messages of the package."""

import logging


class Log:
    """The logger "keras_vit", which configurations of logging cannot disable.

    `logging.config` disables every logger that it does not name; a warning of a damaged
    checkpoint would be lost. To see fewer messages, set the logger's level or a filter.
    """

    def info(self, message: str, *args: object) -> None:
        """Logs something expected."""
        self._log(logging.INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        """Logs something that a user should know and may want to change."""
        self._log(logging.WARNING, message, args)

    def _log(self, level, message, args):
        logger = logging.getLogger("keras_vit")
        logger.disabled = False
        logger.log(level, message, *args, stacklevel=3)


log: Log = Log()
