"""A table's files as one Arrow dataset, made for questions to millions of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
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
# A filter that leaves this share of a row group or more is not held against the others first.
_FEW = 0.01
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
        small, groups = [], []
        for fragment, twin, large in zip(
            self.get_fragments(), self._twins, self._large, strict=True
        ):
            if not large:  # one row group, and one more look at it to leave it out
                small.append(fragment)
                continue
            for group in twin.subset(filter=left_by, schema=self._plain).row_groups:
                groups.append(fragment.subset(row_group_ids=[group.id]))
        return self._only([*small, *self._holding(groups, left_by)]).scanner(**options)

    def _holding(
        self, groups: list[ds.ParquetFileFragment], left_by: pc.Expression
    ) -> list[ds.ParquetFileFragment]:
        """Those of some row groups that hold rows a filter leaves, where it leaves few.

        Ids are hashes, which statistics rule out of next to nothing. The filter's own columns are
        a small part of what is asked, so they are read first.
        """
        if len(groups) < 2 or self._left(groups[0], left_by) > _FEW * groups[0].count_rows():
            return groups
        holding = {
            _place(batch.fragment)
            for batch in self._only(groups).scanner(columns=[], filter=left_by).scan_batches()
            if batch.record_batch.num_rows
        }
        return [group for group in groups if _place(group) in holding]

    def _left(self, group: ds.ParquetFileFragment, left_by: pc.Expression) -> int:
        rows: int = self._only([group]).scanner(columns=[], filter=left_by).count_rows()
        return rows

    def _only(self, fragments: list[ds.ParquetFileFragment]) -> ds.FileSystemDataset:
        return ds.FileSystemDataset(fragments, self.schema, self.format, self.filesystem)


def _place(group: ds.ParquetFileFragment) -> tuple[str, int]:
    return group.path, group.row_groups[0].id
