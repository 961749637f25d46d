"""A store's files in an object store, where nothing is renamed and nobody holds a lock.

    <table>/[<part>/]~<epoch>/<key>/<sequence>-<random>.parquet

A commit puts an object of a name never used before, then looks whether a compaction has begun a
new epoch meanwhile, and if so puts it again there. A compaction begins an epoch, joins what lies
in the ones before, puts one object with all of it, and then removes them: what is put into an
epoch that has ended is not committed yet, so nothing that was is removed unjoined.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.fs as fs

from vsa_core.errors import StoreError
from vsa_core.store.disk import Disk, Place, Write
from vsa_core.store.files import COMPACTED, EPOCH, StoredFile, does_not_read, key_of, one_line

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^?]*)(?:\?(.*))?", re.DOTALL)
# Silence of the server after which a request is given up, and how often it is tried.
_S3_DEFAULTS = {"request_timeout": "30", "connect_timeout": "10", "max_attempts": "5"}
_S3_OPTIONS = (*_S3_DEFAULTS, "endpoint_override", "region", "scheme", "tls_ca_file_path")
_PAGE = 1000  # objects that one answer lists
_AT_ONCE = 16
_CLAIM = ".claim-"
_QUARANTINE = ".quarantine"


def place_of(root: str) -> Place:
    """Where a store's files lie: a local folder, or a URL.

    Raises:
        StoreError: nothing here opens such a URL.
    """
    found = _URL.fullmatch(root)
    if found is None or len(found[1]) < 2 or found[1] == "file":
        return Disk(Path(root.removeprefix("file://")).absolute())
    scheme, path, query = found[1], found[2].strip("/"), found[3] or ""
    location = f"{scheme}://{path}" + (f"?{query}" if query else "")
    if "@" in path.partition("/")[0]:
        raise StoreError(
            f"{scheme}://…@…: credentials do not belong into a URL: set them in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in ~/.aws"
        )
    if not path:
        raise StoreError(f"{location} names no bucket: write {scheme}://BUCKET/FOLDER")
    if scheme == "s3":
        filesystem: fs.FileSystem = _s3(location, path, dict(parse_qsl(query)))
    else:
        filesystem, path = _other(scheme, location)
    return Objects(location, filesystem, path, f"{scheme}://{path}")


def _s3(location: str, path: str, options: dict[str, str]) -> fs.FileSystem:
    unknown = options.keys() - set(_S3_OPTIONS)
    if unknown:
        raise StoreError(
            f"{location}: no option is named {', '.join(sorted(unknown))}; there are: "
            f"{', '.join(_S3_OPTIONS)}"
        )
    given: dict[str, Any] = {**_S3_DEFAULTS, **options}
    try:
        attempts = int(given.pop("max_attempts"))
        for name in ("request_timeout", "connect_timeout"):
            given[name] = float(given[name])
        if "region" not in given:
            given["region"] = (
                "us-east-1"
                if "endpoint_override" in given
                else fs.resolve_s3_region(path.partition("/")[0])
            )
        return fs.S3FileSystem(
            **given,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
            allow_delayed_open=True,  # a small object is one request
            background_writes=False,
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"{location} cannot be opened ({one_line(error)}): see to the URL, the network and the "
            "credentials"
        ) from error


def _other(scheme: str, location: str) -> tuple[fs.FileSystem, str]:
    """Any other scheme: pyarrow's own filesystems, else those of fsspec."""
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (OSError, ValueError, pa.ArrowException) as error:
        try:
            opened, path = importlib.import_module("fsspec").url_to_fs(location)
        except (ImportError, ValueError, OSError) as other:
            raise StoreError(
                f"{location}: nothing here opens {scheme}:// ({one_line(error)}; "
                f"{one_line(other)}): install fsspec's package for it"
            ) from other
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(opened))
    return filesystem, path.rstrip("/")


class Objects:
    """A folder of a bucket.

    Args:
        location: the URL, as errors name it.
        filesystem: opens it.
        base: the folder, as the filesystem knows it.
        shown: the folder's URL without options.
    """

    def __init__(self, location: str, filesystem: fs.FileSystem, base: str, shown: str) -> None:
        self.location = location
        self.filesystem = filesystem
        self.marked = False
        self._base = base
        self._shown = shown

    def path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def where(self, name: str) -> str:
        return f"{self._shown}/{name}"

    def files(self, table: str, part: str | None = None) -> list[StoredFile]:
        folder = _folder(table, part or "")
        while True:
            infos = self._listed(folder, recursive=True)
            found = [
                file for info in infos if (file := self._stored(table, info, part)) is not None
            ]
            # Between two pages a compaction may have put its object on the first and removed
            # from the second what it joined.
            if len(infos) < _PAGE:
                return found
            again = self._listed(folder, recursive=True) if part is None else self._listed(folder)
            if _compacted(found) == _compacted(
                file for info in again if (file := self._stored(table, info, part)) is not None
            ):
                return found

    def around(self, table: str, part: str, key: str) -> list[StoredFile]:
        folder = _folder(table, part)
        top = self._listed(folder)
        while True:
            infos = [info for info in top if info.type == fs.FileType.File]
            for epoch in _epochs(top):
                infos += self._listed(f"{folder}/{epoch}/{key}")
            found = [
                file
                for info in infos
                if (file := self._stored(table, info, part)) is not None and file.key in (None, key)
            ]
            if any(file.key for file in found):
                return found
            before, top = top, self._listed(folder)  # compacted between the two?
            if _names(before) == _names(top):
                return found

    def folders(self, name: str) -> list[str]:
        return sorted(
            info.base_name for info in self._listed(name) if info.type == fs.FileType.Directory
        )

    def contents(self, name: str) -> list[str]:
        return sorted(
            info.base_name for info in self._listed(name) if info.type == fs.FileType.File
        )

    def commit(self, table: str, part: str, key: str, write: Write) -> str:
        folder = _folder(table, part)
        strays: list[str] = []
        with self._written(f"{folder}/{key}", write) as rows:
            epoch = _newest(self._listed(folder))
            while True:
                here = f"{folder}/{EPOCH}{epoch:08d}/{key}"
                older = [i.base_name for i in self._listed(here) if i.type == fs.FileType.File]
                sequence = 1 + max((int(name[:6]) for name in older), default=0)
                name = f"{here}/{sequence:06d}-{uuid.uuid4().hex[:8]}.parquet"
                self._upload(name, rows)
                now = _newest(self._listed(folder))
                if now == epoch:
                    break
                epoch = now
                strays.append(name)
        # They count no longer; whoever compacts finds those that stay.
        with contextlib.suppress(StoreError):
            self.remove([*strays, *(f"{here}/{old}" for old in older)])
        return name

    def put(self, name: str, write: Write) -> None:
        with self._written(name, write) as contents:
            self._upload(name, contents)

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_file(self.path(name)) as file:
            contents: bytes = file.read()
        return contents

    def remove(self, names: Iterable[str]) -> None:
        names = list(names)
        if len(names) > 1:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                list(threads.map(self._remove, names))
        elif names:
            self._remove(names[0])

    def quarantine(self, name: str) -> str:
        aside = f"{_QUARANTINE}/{name}"
        try:
            self.filesystem.copy_file(self.path(name), self.path(aside))
        except OSError as error:
            raise self._refused(aside, error) from error
        self.remove([name])
        return self.where(aside)

    @contextmanager
    def compacting(self) -> Iterator[None]:
        yield  # `opened` keeps two out of one another's way, part by part

    def opened(self, table: str, part: str) -> int:
        """Begin an epoch.

        Raises:
            StoreError: another compaction has begun the same one.
        """
        folder = _folder(table, part)
        generation = 1 + _newest(self._listed(folder))
        claims = f"{folder}/{EPOCH}{generation:08d}"
        mine = f"{_CLAIM}{uuid.uuid4().hex[:8]}"
        self.put(f"{claims}/{mine}", lambda target: target.write(b"compaction\n"))
        others = {i.base_name for i in self._listed(claims) if i.base_name.startswith(_CLAIM)}
        if others != {mine} or _newest(self._listed(folder)) != generation:
            raise StoreError(
                f"{self.where(folder)} is being compacted by another process: wait for it to end"
            )
        return generation

    def swap(self, joined: Sequence[StoredFile], made: str) -> bool:
        folder, _, name = made.rpartition("/")
        table, _, part = folder.partition("/")
        generation = int(name.removeprefix(COMPACTED)[:8])
        top = self._listed(folder)
        if _newest(top) != generation:
            # Another compaction or a purge has begun; it may not have seen this one's object.
            self.remove([made])
            return False
        names = {file.name for file in joined}
        ended = [f for f in self.files(table, part) if f.epoch is not None and f.epoch < generation]
        if all(file.name in names for file in ended):
            for epoch in _epochs(top):
                if int(epoch[1:]) < generation:
                    self.remove_folder(f"{folder}/{epoch}")
            names -= {file.name for file in ended}
        self.remove(sorted(names))
        return True

    def orphans(self) -> Iterator[str]:
        return iter(())  # an object is there whole or not at all

    def _listed(self, folder: str, *, recursive: bool = False) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.path(folder), recursive=recursive, allow_not_found=True)
        try:
            infos: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise self._refused(folder, error) from error
        return infos

    def _stored(self, table: str, info: fs.FileInfo, part: str | None) -> StoredFile | None:
        if info.type != fs.FileType.File:
            return None
        path = info.path.lstrip("/")
        name = path[len(self._base.lstrip("/")) + 1 :]
        own = name.removeprefix(f"{table}/")
        if part is None:
            first, _, rest = own.partition("/")
            part, own = (first, rest) if rest and not first.startswith(EPOCH) else ("", own)
        elif part:
            own = own.removeprefix(f"{part}/")
        ours, key = key_of(own)
        if not ours:
            return None
        stamp = (info.mtime_ns or 0, info.size)
        return StoredFile(info.path, table, part, name, key, info.size, stamp=stamp)

    @contextmanager
    def _written(self, name: str, write: Write) -> Iterator[pa.Buffer]:
        """Everything that is to be put, made on the local disk first."""
        try:
            with tempfile.NamedTemporaryFile(prefix="vsa-") as made:
                write(made)  # type: ignore[arg-type]
                made.flush()
                with pa.memory_map(made.name) as contents:
                    yield contents.read_buffer()
        except OSError as error:
            raise StoreError(
                f"{self.where(name)} cannot be made in {tempfile.gettempdir()} "
                f"({error.strerror or one_line(error)}): free some space there, or set TMPDIR"
            ) from error

    def _upload(self, name: str, contents: pa.Buffer) -> None:
        try:
            target = self.filesystem.open_output_stream(self.path(name))
            try:
                # In one call: an interrupt between two would complete the object cut short.
                target.write(contents)
            finally:
                target.close()
        except OSError as error:
            raise self._refused(name, error) from error

    def _remove(self, name: str) -> None:
        try:
            self.filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused(name, error) from error

    def remove_folder(self, folder: str) -> None:
        try:
            self.filesystem.delete_dir(self.path(folder))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused(folder, error) from error

    def _refused(self, name: str, error: OSError) -> StoreError:
        if "NO_SUCH_BUCKET" in str(error):
            return StoreError(
                f"{self._shown}: there is no such bucket: make it, or correct --store"
            )
        return does_not_read(self.where(name), error, reached=False)


def _folder(table: str, part: str) -> str:
    return f"{table}/{part}" if part else table


def _epochs(infos: Iterable[fs.FileInfo]) -> list[str]:
    return sorted(
        info.base_name
        for info in infos
        if info.type == fs.FileType.Directory and re.fullmatch(r"~\d{8}", info.base_name)
    )


def _newest(infos: Iterable[fs.FileInfo]) -> int:
    """The epoch that commits go to: the highest that a folder or a compacted file names."""
    infos = list(infos)
    found = [int(name[1:]) for name in _epochs(infos)]
    found += [int(m[1]) for i in infos if (m := re.match(r"part-(\d{8})-", i.base_name))]
    return max(found, default=1)


def _compacted(files: Iterable[StoredFile]) -> set[str]:
    return {file.name for file in files if file.compacted}


def _names(infos: Iterable[fs.FileInfo]) -> set[str]:
    return {info.base_name for info in infos}
