"""Files of repositories of the Hugging Face Hub, in the cache that its library keeps."""

import dataclasses
import json
import os
import re

from keras_vit._version import __version__
from keras_vit.download import digests
from keras_vit.download.retry import DownloadError, persist

# The first of these that there is, and those beside it.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_DESCRIPTIONS = ("config.json", "preprocessor_config.json")


def is_forbidden() -> bool:
    """Whether the library has been told to make no requests."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository at a revision. What is in the cache is taken without any request.

    Args:
        name: `owner/name`.
        revision: branch, tag or commit.
        cache: folder of the cache.
        offline: bool, whether to take files from the cache only.

    Its methods raise a `DownloadError` if a file cannot be had, a `ValueError` if one in
    the cache has changed since it was downloaded, an `OSError` if one cannot be written.
    """

    name: str
    revision: str
    cache: str
    offline: bool

    def file(self, name: str) -> str:
        """Path of a file of the repository."""
        path = self._find((name,))
        if path is None:
            raise DownloadError(self._without(name))
        return path

    def checkpoint(self) -> str:
        """Path of the folder with weights and configuration, and little else."""
        path = self._find(_WEIGHTS)
        if path is None:
            raise DownloadError(self._without(", ".join(_WEIGHTS)))
        folder, file = os.path.split(path)
        # Whatever is pushed meanwhile, the other files are of the same commit.
        commit = dataclasses.replace(self, revision=os.path.basename(folder))
        if file.endswith(".index.json"):
            for shard in _shards(path):
                commit.file(shard)
        for name in _DESCRIPTIONS:
            if not commit._is_known_to_lack(name):
                commit._find((name,))
        return folder

    def _without(self, names):
        place = f"the cache {self.cache!r}" if self.offline else "the repository"
        return f"there is no {names} in {place} at revision {self.revision!r}"

    def _find(self, names):
        """Path of the first of some files that there is: in the cache, else in the hub."""
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
            digests.check(path)
        wrong = digests.mismatch(path, expected)
        if wrong:
            raise digests.changed(wrong, os.path.realpath(path))
        return path

    def _download(self, name):
        def attempt():
            path = self._request(name)
            wrong = path and digests.mismatch(path, _blob_digest(path))
            if wrong:
                _delete(path)
                raise DownloadError(f"{name}: its {wrong}", retry=True)
            return path

        path = persist(attempt)
        if path and not _blob_digest(path):
            digests.record(path)
        return path

    def _request(self, name):
        """Path of a file that the library gets; `None` if the hub has none."""
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
            raise DownloadError(f"{name}: {error.__cause__ or error}") from error
        except errors.EntryNotFoundError:
            return None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 500
            raise DownloadError(f"{name}: {error}", retry=status >= 500) from error
        except OSError as error:
            if error.errno is not None:
                raise  # of the disk, not of the network
            raise DownloadError(f"{name}: {error}", retry=True) from error
        except Exception as error:  # whatever the HTTP library of the day raises
            raise DownloadError(f"{name}: {error!r}", retry=True) from error


def _blob_digest(path):
    """The digest that the library names a blob by; none where it makes no links."""
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
    """The files that an index names, all of them beside it."""
    try:
        with open(index, encoding="utf-8") as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{index!r} is no index of a sharded checkpoint, which maps the name of each "
            f"tensor to a file in `weight_map`: {error!r}. Take another checkpoint."
        ) from error
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*\.safetensors", str(name), re.ASCII):
            raise ValueError(
                f"{index!r} should name .safetensors files that lie beside it. Received: "
                f"{name!r}. Take another checkpoint."
            )
    return names
