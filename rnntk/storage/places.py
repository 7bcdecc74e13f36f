"""Where kernels lie: a folder, or an object store that fsspec reaches.

Files appear there as a whole. Those of a folder are written beside their place and then renamed,
and past the system's cache. An object store does as much by itself: an upload is seen when it is
complete.
"""

import glob
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rnntk.files import save_large

Fill = Callable[[np.ndarray], Any]
_ROOT = "zarr.json"  # what Zarr looks for first
_PART = "[0-9a-f]" * 32 + ".part"  # what is being written, see rnntk.files
_DEAD = 3600  # seconds after which nobody still writes a file


@dataclass(frozen=True)
class Folder:
    """A folder of a file system."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def at(self, name: str) -> "Folder":
        """A folder in it."""
        return Folder(self.path / name)

    def exists(self) -> bool:
        """Whether anything is there."""
        return self.path.exists()

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.path / name).is_file()

    def names(self, folder: str) -> list[str]:
        """Files and folders in a folder, of which there may be none."""
        found = self.path / folder
        return os.listdir(found) if found.is_dir() else []

    def read(self, name: str) -> np.ndarray:
        """The bytes of a file.

        Raises:
            FileNotFoundError: if there is none.
        """
        return np.fromfile(self.path / name, np.uint8)

    def write(self, name: str, size: int, fill: Fill) -> None:
        """Replace a file of so many bytes, which ``fill`` puts into an array."""
        save_large(self.path / name, size, fill)

    def modified(self, name: str) -> float | None:
        """Seconds since the epoch at which a file was written."""
        return (self.path / name).stat().st_mtime

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything, if there is anything."""
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.part")
        with suppress(FileNotFoundError):  # also if another process clears it
            os.rename(self.path, aside)
            shutil.rmtree(aside)

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""
        beside = self.path.parent.glob(f"{glob.escape(self.path.name)}.{_PART}")
        for part in (*beside, *self.path.glob(f"*/c/*/*.{_PART}")):
            with suppress(OSError):  # another process sweeps, or it is somebody else's
                if time.time() - part.stat().st_mtime > _DEAD:
                    shutil.rmtree(part) if part.is_dir() else part.unlink()

    def zarr_store(self) -> Any:
        """What Zarr reads it by."""
        return str(self.path)

    def begin(self, make: Callable[[Any], Any], check: Callable[[], Any]) -> None:
        """Fill it, unless that was done: beside its place, and then renamed.

        Args:
            make: writes into a store of Zarr.
            check: raises if what is there is not what ``make`` writes.
        """
        if not self.exists():
            beside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.part")
            beside.parent.mkdir(parents=True, exist_ok=True)
            try:
                make(str(beside))
                os.rename(beside, self.path)
            except OSError:
                if not self.exists():  # else another process was first
                    raise
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        check()


@dataclass(frozen=True)
class ObjectStore:
    """What fsspec reaches by a URL; its settings are those that fsspec finds for itself."""

    url: str

    def __str__(self) -> str:
        return self.url

    def at(self, name: str) -> "ObjectStore":
        """A folder in it."""
        return ObjectStore(f"{self.url}/{name}")

    def exists(self) -> bool:
        """Whether anything is there."""
        return bool(self.names(""))

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        files, path = self._found(name)
        return bool(files.exists(path))

    def names(self, folder: str) -> list[str]:
        """Files and folders in a folder, of which there may be none."""
        files, path = self._found(folder)
        try:
            listed = files.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return [name.rstrip("/").rpartition("/")[2] for name in listed]

    def read(self, name: str) -> np.ndarray:
        """The bytes of a file.

        Raises:
            FileNotFoundError: if there is none.
        """
        files, path = self._found(name)
        return np.frombuffer(bytearray(files.cat_file(path)), np.uint8)  # which may be written to

    def write(self, name: str, size: int, fill: Fill) -> None:
        """Replace a file of so many bytes, which ``fill`` puts into an array."""
        content = np.empty(size, np.uint8)
        fill(content)
        self._upload(name, content.tobytes())

    def modified(self, name: str) -> float | None:
        """Likewise, if the store tells."""
        files, path = _filesystem(f"{self.url}/{name}")  # the last listing may tell
        try:
            return float(files.modified(path).timestamp())
        except NotImplementedError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        files, path = self._found(name)
        with suppress(FileNotFoundError):
            files.rm_file(path)

    def clear(self) -> None:
        """Remove everything, if there is anything."""
        files, path = self._found("")
        with suppress(FileNotFoundError):
            files.rm(path, recursive=True)

    def sweep(self) -> None:
        """Uploads that were broken off are the store's to remove."""

    def zarr_store(self) -> Any:
        """What Zarr reads it by."""
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.url, read_only=True)

    def begin(self, make: Callable[[Any], Any], check: Callable[[], Any]) -> None:
        """Fill it, unless that was done: first the description, by an upload that replaces nothing.

        So all that is uploaded later is of one kernel, and the same bytes, whoever does it. The
        description of an array comes last, and tells that all is there.

        Args:
            make: writes into a store of Zarr.
            check: raises if what is there is not what ``make`` writes.
        """
        from zarr.storage import MemoryStore

        content: dict[str, Any] = {}
        make(MemoryStore(content))
        if not self.exists():
            with suppress(FileExistsError):  # another process was first
                self._upload(_ROOT, content[_ROOT].to_bytes(), mode="create")
        check()
        rest = sorted(content.keys() - {_ROOT}, key=lambda name: (name.endswith(_ROOT), name))
        if not self.has(rest[-1]):
            for name in rest:
                self._upload(name, content[name].to_bytes())

    def _upload(self, name: str, content: bytes, mode: str = "overwrite") -> None:
        files, path = self._found(name)
        files.pipe_file(path, content, mode=mode)

    def _found(self, name: str) -> tuple[Any, str]:
        """The file system and a path in it, of which nothing is taken from earlier listings."""
        files, path = _filesystem(f"{self.url}/{name}".rstrip("/"))
        files.invalidate_cache(path)
        return files, path


Place = Folder | ObjectStore


def place_of(path: str | os.PathLike[str], name: str) -> Place:
    """The place that an argument means.

    Raises:
        TypeError: for what is no path.
        ValueError: for a URL that means no place.
        ImportError: for one that needs a package which is missing.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {type(path).__name__}.")
    given = os.fspath(path)
    if isinstance(path, os.PathLike) and re.match(r"[a-z][a-z0-9+.-]+:/", given):
        raise TypeError(f"{name} must be a str if it is a URL, which a path changes: got {path!r}.")
    if "://" not in given:
        return Folder(Path(given).expanduser().resolve())
    if "::" in given or not given.partition("://")[2].strip("/"):
        raise ValueError(
            f"{name} must be a folder, or one URL of a place in a store, got {given!r}."
        )
    try:
        files, inside = _filesystem(given)
    except ImportError as error:
        raise ImportError(f"{name} {given!r} needs another package: {error}") from None
    except ValueError as error:
        raise ValueError(
            f"{name} must be a folder or a URL that fsspec knows, got {given!r}: {error}."
        ) from None
    if "file" in files.protocol:  # by renames and past the cache, as fsspec does not write
        return Folder(Path(inside).resolve())
    return ObjectStore(given.rstrip("/"))


def _filesystem(url: str) -> tuple[Any, str]:
    found: tuple[Any, str] = fsspec().core.url_to_fs(url)
    return found


def fsspec() -> ModuleType:
    """The package that reaches object stores.

    Raises:
        ImportError: if it is missing, saying how to get it.
    """
    try:
        import fsspec as package
    except ImportError:
        raise ImportError(
            "Kernels in object stores need the package fsspec: pip install 'rnntk[scale]'."
        ) from None
    return package
