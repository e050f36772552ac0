"""Lists in errors, cut after ten items."""

from collections.abc import Iterable

MOST = 10


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """Joins the first ten items, and counts the others."""
    items = list(items)
    more = f"{separator}and {len(items) - MOST} more" if len(items) > MOST else ""
    return separator.join(items[:MOST]) + more
