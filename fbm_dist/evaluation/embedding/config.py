"""The config of embedding a collection; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_tools.config import Config
from fbm_dist.evaluation.config import Evaluation
from fbm_dist.objectives.families import Pretraining
from fbm_dist.schema import Data


class Clusters(Config):
    """k-means over the clips, learnt from a sample and then from every clip, a part at a time."""

    number: int = Field(20, ge=2)  # no more than there are clips: a smaller collection gets fewer, which a note tells
    group: str = "all"  # which features clusters and neighbours go by: one group, or all of them side by side
    scale: Literal["standard", "l2"] = (
        "standard"  # every column to zero mean and unit variance, or every clip to length 1
    )
    sample: int = Field(20_000, ge=2)  # clips in memory at a time to start from; no more than there are

    @model_validator(mode="after")
    def _enough_to_start_from(self) -> Clusters:
        if self.sample < self.number:
            raise ValueError(
                f"clusters.sample={self.sample}: {self.number} clusters (clusters.number) cannot start from so few clips; "
                f"set it to {self.number} or more"
            )
        return self


class Page(Config):
    """page.html: clusters and nearest neighbours, with clips that play."""

    clusters: int = Field(40, ge=0)  # the largest ones; the others are counted
    central: int = Field(6, ge=0)  # clips of a cluster that are nearest to its centre
    random: int = Field(6, ge=0)  # clips of a cluster that are drawn by lot
    queries: int = Field(12, ge=0)  # clips, drawn by lot, whose neighbours are shown
    neighbours: int = Field(6, ge=1)  # nearest clips of other films to each of them
    height: int = Field(128, ge=32)  # of the still pictures, in pixels
    # of the page: clips play, then have a picture, then stand there at all as long as it stays below; title, figures, map and settings
    # always stand, some 0.1 MB
    max_bytes: int = Field(60_000_000, ge=1_000_000)


class Map(Config):
    """map.png: a sample of the clips as points of a plane."""

    clips: int = Field(2000, ge=10)
    method: Literal["t-sne", "pca"] = "t-sne"


class Embedding(Evaluation):
    """Every clip's features in parquet files, clusters of them, and a page to look at."""

    protocol: Literal["embedding"] = "embedding"
    # the first: of k-means, of what is drawn by lot, and of the weights where the encoder is random
    seeds: tuple[int, ...] = Field((0,), min_length=1, max_length=1)
    encoder: str  # models:/name@alias, models:/name/version, runs:/ID, a run's folder, or random
    architecture: Pretraining | None = Field(None, discriminator="family")  # of random; None: the full FBM
    data: Data
    batch: int = Field(16, ge=1)  # clips a forward pass
    part_clips: int = Field(4096, ge=1)  # clips of the data set a parquet file: what is lost when a process is killed
    precision: Literal["float32", "float16"] = "float32"  # of the features in the files
    clusters: Clusters = Clusters()
    page: Page = Page()
    map: Map | None = Map()
    retry: bool = (
        False  # make the files again that lack clips because these could not be decoded: after a repair of the shards
    )
    log_embeddings: bool = False  # the parquet files of the features too go to MLflow, not only clusters and page

    @model_validator(mode="after")
    def _one_data_set(self) -> Embedding:
        if self.data.mix:
            raise ValueError("an embedding reads data.path alone; leave data.mix out")
        return self
