"""Files of the Hugging Face Hub, in the cache of `huggingface_hub`."""

import dataclasses
import json
import os
import re

from keras_vit._version import __version__
from keras_vit.download import digests
from keras_vit.download.retry import DownloadError, with_retries

# The first of these files that exists, and all of the descriptions.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_DESCRIPTIONS = ("config.json", "preprocessor_config.json")


def is_forbidden() -> bool:
    """True if `HF_HUB_OFFLINE` forbids requests."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository at a revision. Files in the cache are used without a request.

    Args:
        name: `owner/name`.
        revision: branch, tag or commit.
        cache: folder of the cache.
        offline: bool, whether to take files from the cache only.

    Its methods raise a `DownloadError` if a file cannot be downloaded, a `ValueError` if a
    file in the cache has changed since its download, an `OSError` if one cannot be written.
    """

    name: str
    revision: str
    cache: str
    offline: bool

    def file(self, name: str) -> str:
        """Path of a file of the repository."""
        path = self._find((name,))
        if path is None:
            raise DownloadError(self._absence(name))
        return path

    def checkpoint(self) -> str:
        """Path of a folder with the weights and their descriptions."""
        path = self._find(_WEIGHTS)
        if path is None:
            raise DownloadError(self._absence(", ".join(_WEIGHTS)))
        folder, file = os.path.split(path)
        # All other files come from the same commit, whatever is pushed in the meantime.
        commit = dataclasses.replace(self, revision=os.path.basename(folder))
        if file.endswith(".index.json"):
            for shard in _shards(path):
                commit.file(shard)
        for name in _DESCRIPTIONS:
            if not commit._is_known_to_lack(name):
                commit._find((name,))
        return folder

    def _absence(self, names):
        place = f"the cache {self.cache!r}" if self.offline else "the repository"
        return f"there is no {names} in {place} at revision {self.revision!r}"

    def _find(self, names):
        """Path of the first file that exists, in the cache or else in the hub."""
        places = [self._cached] if self.offline else [self._cached, self._download]
        for place in places:
            for name in names:
                path = place(name)
                if path is not None:
                    return path
        return None

    def _look_up(self, name):
        import huggingface_hub

        return huggingface_hub.try_to_load_from_cache(
            self.name, name, cache_dir=self.cache, revision=self.revision
        )

    def _is_known_to_lack(self, name):
        found = self._look_up(name)
        return found is not None and not isinstance(found, str)

    def _cached(self, name):
        path = self._look_up(name)
        if not isinstance(path, str):
            return None
        expected = _blob_digest(path)
        if not expected:
            digests.check_record(path)
        wrong = digests.mismatch(path, expected)
        if wrong:
            raise digests.damage_error(wrong, os.path.realpath(path))
        return path

    def _download(self, name):
        def attempt():
            path = self._request(name)
            wrong = path and digests.mismatch(path, _blob_digest(path))
            if wrong:
                _delete(path)
                raise DownloadError(f"{name}: its {wrong}", retry=True)
            return path

        path = with_retries(attempt)
        if path and not _blob_digest(path):
            digests.write_record(path)
        return path

    def _request(self, name):
        """Path of a file that the library downloads; `None` if the hub lacks it."""
        import huggingface_hub
        from huggingface_hub import errors

        try:
            return huggingface_hub.hf_hub_download(
                self.name,
                name,
                revision=self.revision,
                cache_dir=self.cache,
                library_name="keras_vit",
                library_version=__version__,
            )
        except errors.HFValidationError:
            raise
        except errors.LocalEntryNotFoundError as error:
            reason = self._reason(error.__cause__ or error)
            raise DownloadError(f"{name}: {reason}") from error
        except errors.EntryNotFoundError:
            return None
        except errors.HfHubHTTPError as error:
            retry = (_status(error) or 500) >= 500
            raise DownloadError(f"{name}: {self._reason(error)}", retry=retry) from error
        except OSError as error:
            if error.errno is not None:
                raise  # an error of the disk, not of the network
            raise DownloadError(f"{name}: {error}", retry=True) from error
        except Exception as error:  # depends on the HTTP library of this version
            raise DownloadError(f"{name}: {error!r}", retry=True) from error

    def _reason(self, error):
        """Text of an error, with the way into a repository that is not open to all."""
        from huggingface_hub import constants

        reason = str(error).rstrip(".")
        if _status(error) not in (401, 403):
            return reason
        return (
            f"{reason}. The name may be wrong, or the repository open only to those who "
            f"accept its license: sign in at {constants.ENDPOINT}/{self.name} and accept "
            "it there, then set the environment variable HF_TOKEN to a token of the same "
            f"account ({constants.ENDPOINT}/settings/tokens) that may read it"
        )


def _status(error):
    """Status of the answer that an error is about; `None` without an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _blob_digest(path):
    """Digest in the library's name for a file; empty if the cache has no links."""
    blob = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
    for algorithm, length in (("sha256", 64), ("git", 40)):
        if re.fullmatch(f"[0-9a-f]{{{length}}}", blob):
            return [digests.Digest("the hub", algorithm, blob)]
    return []


def _delete(path):
    """Deletes a file that may be a link to a link."""
    while os.path.islink(path):
        target = os.path.join(os.path.dirname(path), os.readlink(path))
        os.remove(path)
        path = target
    os.remove(path)


def _shards(index):
    """Names of the files of an index, all in its folder."""
    try:
        with open(index, encoding="utf-8") as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{index!r} must be the index of a sharded checkpoint, whose `weight_map` maps "
            f"names of tensors to files. Received: {error!r}. Use another checkpoint."
        ) from error
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*\.safetensors", str(name), re.ASCII):
            raise ValueError(
                f"{index!r} must name .safetensors files in its folder. Received: "
                f"{name!r}. Use another checkpoint."
            )
    return names
