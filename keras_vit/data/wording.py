"""How errors list what may be long."""

from collections.abc import Iterable

MOST = 10


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first ten items, and how many more there are."""
    items = list(items)
    more = f"{separator}and {len(items) - MOST} more" if len(items) > MOST else ""
    return separator.join(items[:MOST]) + more
