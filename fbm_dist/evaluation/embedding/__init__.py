"""Embed a collection: every clip's features in parquet files, clusters, nearest neighbours and a page. `read` is for users.

from fbm_dist.evaluation.embedding import features, read

clips = read("runs/embedding")                                # a pyarrow Dataset: nothing is in memory yet
for batch in clips.to_batches(columns=["key", "motion"], batch_size=1000):
    vectors = features(batch, "motion")                       # float32 (n, d), a row for each key
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.dataset as ds


def read(folder: str | Path) -> ds.FileSystemDataset:
    """The embeddings in an evaluation's output folder: a row for each clip that could be decoded, in the data set's order.

    Columns: key, film, source, shot, start, stop (of the stored clip, frames of the film), seen_start, seen_stop (what the encoder
    saw of it), fps, group, split, labels (map), licence, attribution, shard; and a fixed-size list for each group of features.
    The metadata of the schema says what made them.

    Raises:
        ValueError: there are none, or not all of them yet.
    """
    from fbm_dist.evaluation.embedding.reader import open_embeddings  # pyarrow: the config alone needs none

    return open_embeddings(folder).dataset()


def features(table: pa.Table | pa.RecordBatch, group: str = "all") -> np.ndarray:
    """A column of features as float32 (n, d); "all": all columns of features of the table, side by side.

    Raises:
        ValueError: there is no such column.
    """
    from fbm_dist.evaluation.embedding.reader import features as of_table

    return of_table(table, group)
