"""Zip archives, which NumPy, torch and Keras write."""

import os
import struct
import tokenize
import zipfile
import zlib

# Weights hardly compress; what unpacks to more than this is made to fill the memory.
MAX_COMPRESSION = 20


def open_zip(path: str) -> zipfile.ZipFile:
    """Opens an archive that unpacks to no more than its size can honestly hold.

    Raises:
        ValueError: if it claims to hold more, or is packed in another way than those of
            NumPy, torch and Keras.
        Exception: of `ZIP_ERRORS`, where it is damaged.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    size = os.path.getsize(path)
    names = [member.filename for member in members]
    reason = None
    if packed > size or unpacked > MAX_COMPRESSION * size:
        reason = f"it claims to hold {unpacked:,} bytes of arrays"
    elif len(set(names)) < len(names):
        reason = f"{max(names, key=names.count)!r} is there twice"
    # Of what other methods unpack, Python's zipfile limits no read.
    elif any(member.compress_type not in _PACKED for member in members):
        reason = "it is packed in another way than stored or deflated"
    if reason:
        archive.close()
        raise ValueError(reason)
    return archive


_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    AttributeError,
    NotImplementedError,  # an encrypted or exotically compressed member
    OSError,
    RuntimeError,
    SyntaxError,  # of the header
    tokenize.TokenError,  # the same, where NumPy tries again
    TypeError,
    ValueError,
    MemoryError,
    OverflowError,
    UnicodeDecodeError,
)
