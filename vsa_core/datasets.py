"""A table's files as one Arrow dataset, made for questions to millions of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs

from vsa_core.schemas import TABLES
from vsa_core.store import StoredFile
from vsa_core.store.files import as_written

# Tables with many rows a video. Their columns of few different values come as dictionaries, which
# are three to four times as quick to group, compare and join as strings of their own.
_LONG = ("transcripts", "segments", "predictions", "embeddings", "faces", "labels")
_REPEATED = frozenset(
    {
        "video_id", "run_id", "backend", "modality", "status", "channel_id", "title", "text_source",
        "language", "sentiment", "emotion", "origin", "agreement", "text_vote", "face_vote",
        "audio_vote", "model_id", "config_id",
    }
)  # fmt: skip
_WORD = pa.dictionary(pa.int32(), pa.string())


class TableFiles(ds.FileSystemDataset):
    """Files of one table that DuckDB scans, page checksums checked.

    Arrow leaves row groups out by their statistics, but not by those of a column that comes as a
    dictionary: so the same files are asked as plain columns which row groups a filter leaves.
    """

    @classmethod
    def of(cls, table: str, files: Sequence[StoredFile], filesystem: fs.FileSystem) -> TableFiles:
        """The dataset of some files."""
        plain = as_written(TABLES[table].schema)
        words = [f.name for f in plain if table in _LONG and f.name in _REPEATED]
        schema = pa.schema([f.with_type(_WORD) if f.name in words else f for f in plain])
        checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        file_format = ds.ParquetFileFormat(
            dictionary_columns=words, default_fragment_scan_options=checked
        )
        paths = [file.path for file in files]
        self = cls(
            [file_format.make_fragment(path, filesystem) for path in paths],
            schema,
            file_format,
            filesystem,
        )
        self._plain = plain
        self._twins = [ds.ParquetFileFormat().make_fragment(path, filesystem) for path in paths]
        self._large = [file.compacted or table == "labels" for file in files]
        return self

    def scanner(self, **options: Any) -> ds.Scanner:
        """What DuckDB calls, with the columns it needs and a filter where it has one."""
        left_by = options.get("filter")
        if left_by is None:
            return super().scanner(**options)
        fragments = []
        for fragment, twin, large in zip(
            self.get_fragments(), self._twins, self._large, strict=True
        ):
            if not large:  # one row group, and one more look at it to leave it out
                fragments.append(fragment)
                continue
            groups = twin.subset(filter=left_by, schema=self._plain).row_groups
            if groups:
                fragments.append(fragment.subset(row_group_ids=[group.id for group in groups]))
        left = ds.FileSystemDataset(fragments, self.schema, self.format, self.filesystem)
        return left.scanner(**options)
