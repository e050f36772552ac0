"""Names of files and folders that operating systems leave among images."""

CLUTTER = {
    "$recycle.bin",  # Windows
    "desktop.ini",
    "ehthumbs.db",
    "recycled",
    "recycler",
    "system volume information",
    "thumbs.db",
    "__macosx",  # macOS
    "icon\r",
    "network trash folder",
    "temporary items",
    "#recycle",  # disks in a network
    "#snapshot",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "lost+found",  # Linux
    "__pycache__",
}
ENDINGS = (":zone.identifier", "@synoeastream", "@synoresource")


def is_clutter(name: str) -> bool:
    """Returns `True` for hidden names (`.git`, `._photo.jpg`) and those of systems."""
    folded = name.casefold()
    return folded.startswith(".") or folded in CLUTTER or folded.endswith(ENDINGS)
