"""Zip archives, as NumPy, torch and Keras write them."""

import io
import os
import struct
import tokenize
import zipfile
import zlib

from keras_vit.weights.files.tensor_file import DAMAGE_ERRORS

# Weights hardly compress; archives of a higher ratio are made to exhaust the memory.
MAX_COMPRESSION = 20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def open_zip(path: str) -> zipfile.ZipFile:
    """Opens an archive, if its claimed sizes are possible for a file of its size.

    Raises:
        ValueError: if it claims to hold more than is possible, holds a name twice, or is
            packed by another method than NumPy, torch and Keras use.
        Exception: one of `ZIP_ERRORS`, if it is damaged.
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
    # Python's zipfile does not limit the output of other methods.
    elif any(member.compress_type not in _PACKED for member in members):
        reason = "it is packed in another way than stored or deflated"
    if reason:
        archive.close()
        raise ValueError(reason)
    return archive


ZIP_ERRORS = (
    *DAMAGE_ERRORS,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    SyntaxError,  # in NumPy's header
    tokenize.TokenError,  # the same, as NumPy tries again
)


def open_at_member(path: str, member: zipfile.ZipInfo) -> io.RawIOBase:
    """Opens an archive as a separate file at the first byte of a member, packed or not."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115, the caller closes it
    file.seek(member.header_offset)
    name_length, extra_length = struct.unpack("<26xHH", file.read(30))
    file.seek(name_length + extra_length, os.SEEK_CUR)
    return file


def open_member(archive: zipfile.ZipFile, name: str) -> io.IOBase:
    """Opens a member of an archive as a file with random access."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(member))
    # zipfile seeks backwards from the start again, which takes 20 s for a ViT-B/16.
    return _StoredMember(archive.filename, member)


class _StoredMember(io.RawIOBase):
    """A stored member of an archive."""

    def __init__(self, path, member):
        self._file = open_at_member(path, member)
        self._start, self._size, self._position = self._file.tell(), member.file_size, 0

    def close(self):
        self._file.close()
        super().close()

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer):
        self._file.seek(self._start + self._position)
        length = max(0, min(len(buffer), self._size - self._position))
        read = self._file.readinto(memoryview(buffer)[:length])
        self._position += read
        return read
