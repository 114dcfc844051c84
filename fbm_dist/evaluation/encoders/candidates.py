"""The encoders that are compared: by name from the registry, from a run's folder, or freshly initialised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fbm_dist import registry
from fbm_dist.evaluation.config import OfEncoders
from fbm_dist.objectives.families import Pretraining
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.objective import Encoder
from fbm_dist.registry import Description, Registered
from fbm_dist.schema import ClipSpec, Data

RANDOM = "random"


@dataclass(frozen=True)
class Candidate:
    """One encoder under test.

    Attributes:
        name: what the table calls it; unique.
        uri: as the user wrote it.
        family: the architecture; `clip`: how it wants its clips.
        description: None for random.
        registered: None where it does not come from the registry.
    """

    name: str
    uri: str
    family: Pretraining
    clip: ClipSpec
    description: Description | None
    registered: Registered | None
    tracking_uri: str | None

    @property
    def random(self) -> bool:
        """Freshly initialised: every seed is another encoder."""
        return self.description is None

    def encoder(self, seed: int) -> Encoder:
        """The encoder, in eval mode; `seed` matters for random only."""
        if self.random:
            return registry.fresh_encoder(self.family, seed=seed).eval()
        uri = self.registered.uri if self.registered else self.uri  # the alias may move while this runs
        return registry.load_encoder(uri, tracking_uri=self.tracking_uri)

    def seeds(self, given: Sequence[int]) -> Sequence[int]:
        """Those that give another encoder each: all for random, else the first."""
        return given if self.random else given[:1]

    def data(self, given: Data, label: str | None = None) -> Data:
        """`given`, read as this encoder needs it: its own frames and size, the clip's centre, no masks, no augmentation.

        Args:
            label: only clips that have it; None: all.
        """
        chosen = given.filter if label is None else given.filter.model_copy(update={"labelled": label})
        return given.model_copy(update={"clip": self.family.pictures(self.clip), "filter": chosen})


def candidates(evaluation: OfEncoders) -> tuple[Candidate, ...]:
    """The encoder under test and those beside it, in the order of the table: comparisons first.

    Raises:
        ValueError: an encoder that is not there or cannot be read.
    """
    uris = list(dict.fromkeys([*evaluation.compare_with, evaluation.encoder]))
    return found(uris, evaluation.architecture, evaluation.tracking.uri, first=evaluation.encoder)


def found(
    uris: Sequence[str], architecture: Pretraining | None, tracking: str | None, *, first: str | None = None
) -> tuple[Candidate, ...]:
    """The encoders at these addresses.

    Args:
        architecture: of random; None: that of `first`, else of the first address that is not random, else the full FBM.
    Raises:
        ValueError: as `candidates`.
    """
    known = {uri: registry.describe(uri, tracking_uri=tracking) for uri in uris if uri != RANDOM}
    described = [known[uri] for uri in (first, *uris) if uri in known]
    family = architecture or (described[0].objective if described else FBMConfig())
    clip = described[0].objective.pictures(described[0].clip) if described else ClipSpec()
    clip = clip.model_copy(update={"frames": family.frames, "size": family.size})
    out = []
    for uri in uris:
        description = known.get(uri)
        if description is None:
            out.append(Candidate("random initialisation", uri, family, clip, None, None, tracking))
            continue
        registered = registry.resolve(uri, tracking_uri=tracking)
        name = f"{registered.name} v{registered.version}" if registered else uri
        out.append(Candidate(name, uri, description.objective, description.clip, description, registered, tracking))
    twice = [c.uri for c in out if [d.name for d in out].count(c.name) > 1]
    if twice:
        raise ValueError(f"{' and '.join(twice)} are the same encoder; name it once")
    return tuple(out)
