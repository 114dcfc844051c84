"""Files that are there already: made again where clips were lost and it is asked for; never joined by others than their own kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_tools.dataset import read_manifest
from data_tools.shards import shard_file
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.embedding import protocol, read
from fbm_dist.evaluation.embedding.config import Embedding
from fbm_dist.evaluation.embedding.reader import ABOUT, FORMAT, open_embeddings
from fbm_dist.evaluation.report.results import Results
from fbm_dist.schema import Data
from tests.datasets import destroy

Make = Callable[..., Embedding]
Embedded = tuple[Embedding, Results]


def test_clips_come_back_after_a_repair(embedding: Make, shards: Path, tmp_path: Path) -> None:
    """With `retry`, and only the files that lack clips are made again."""
    damaged = tmp_path / "damaged"
    shutil.copytree(shards, damaged)
    row = read_manifest(damaged).to_pylist()[7]  # of the second file
    destroy(damaged, row["key"])
    wanted = embedding(data=Data(path=damaged, decode="pyav", workers=1, max_undecodable=1.0))
    evaluate(wanted)
    folder = wanted.output / "embeddings"
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert open_embeddings(wanted.output).lost == (row["key"],)
    still = evaluate(wanted.model_copy(update={"retry": True}))
    assert still.facts["parts_made"] == 1
    assert still.details["lost"] == [row["key"]], "nobody has repaired it"

    whole = shard_file(shards, row["shard"], "tar")
    shard_file(damaged, row["shard"], "tar").write_bytes(whole.read_bytes())
    without = evaluate(wanted)
    assert (without.facts["parts_made"], without.details["lost"]) == (0, [row["key"]])
    results = evaluate(wanted.model_copy(update={"retry": True}))
    assert (results.facts["parts_made"], results.details["lost"]) == (1, [])
    assert not any("could not be decoded" in note for note in results.notes)
    assert read(wanted.output).to_table()["key"].to_pylist() == read_manifest(shards)["key"].to_pylist()
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"part-00001.parquet"}
    assert evaluate(wanted.model_copy(update={"retry": True})).facts["parts_made"] == 0, "nothing is missing any more"


def change(path: Path, **about: Any) -> None:
    """What a file says of what made it."""
    found = pq.read_table(path)
    metadata = found.schema.metadata
    told = json.dumps(json.loads(metadata[ABOUT]) | about).encode()
    pq.write_table(found.replace_schema_metadata(metadata | {ABOUT: told}), path)


def test_missing_files_are_not_read_with_another_decoder(
    embedded: Embedded, embedding: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = embedding()
    shutil.copytree(embedded[0].output, wanted.output)
    files = sorted((wanted.output / "embeddings").iterdir())
    for path in files:
        change(path, decoder="dali-mixed")
    assert evaluate(wanted).facts["parts_made"] == 0, "there is nothing to decode"
    files[3].unlink()
    monkeypatch.setattr(protocol, "write_parts", lambda *_: pytest.fail("computed"))
    said = r"read with dali-mixed, which data\.decode=pyav on device cpu does not offer here .*data\.decode=auto, or give another"
    with pytest.raises(ValueError, match=said) as caught:
        evaluate(wanted)
    assert "\n" not in str(caught.value)


def test_files_of_another_format_are_refused(
    embedded: Embedded, embedding: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = embedding()
    shutil.copytree(embedded[0].output, wanted.output)
    change(wanted.output / "embeddings" / "part-00000.parquet", format=FORMAT + 1)
    monkeypatch.setattr(protocol, "write_parts", lambda *_: pytest.fail("computed"))
    for use in (lambda: evaluate(wanted), lambda: read(wanted.output)):
        with pytest.raises(ValueError, match=rf"00000\.parquet: is of format {FORMAT + 1}, .* or give another output"):
            use()
