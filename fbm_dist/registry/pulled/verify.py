"""Verify a pulled folder: checksums, config, weights, and that its program gives what they give. Offline, unless told otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fbm_dist.inference.archive import open_program
from fbm_dist.inference.sums import CARD, CONFIG, PROGRAM, VERSION, WEIGHTS, check, digest, read_checked
from fbm_dist.registry.catalogue import entry
from fbm_dist.registry.client import connect
from fbm_dist.registry.exports.agreement import BATCHES, check_agrees, random_clips
from fbm_dist.registry.folder import Description, read_description, read_encoder
from fbm_dist.registry.versions import CONFIG_TAG

NEEDED = (WEIGHTS, CONFIG, CARD, VERSION)


@dataclass(frozen=True)
class Verified:
    """What was found right.

    Attributes:
        uri: what the folder says that it is.
        far: of the program's features from the weights', as a share of the largest; None: there is no program.
        against: the version in the registry that it was compared with.
    """

    uri: str
    files: int
    description: Description
    far: float | None
    against: str | None

    def lines(self) -> list[str]:
        """For people."""
        said = f"{self.uri}: {self.files} files, {self.description.parameters:,} parameters: as they were pulled"
        program = (
            "no program" if self.far is None else f"the program's features are within {self.far:.1g} of the encoder's"
        )
        registry = "not compared with the registry (against=models:/NAME/VERSION does)"
        if self.against:
            registry = f"config and weights are those of {self.against} in the registry"
        return [said, program, registry]


def verify(folder: Path, *, against: str | None = None, tracking_uri: str | None = None) -> Verified:
    """Whether `folder` is as it was pulled.

    SHA256SUMS lies in the folder: who may write there may rewrite it, too. `against` asks the registry, which keeps checksums of its own.

    Args:
        against: models:/NAME/VERSION or another URI of a version.
    Raises:
        ValueError: the first thing that is wrong, in one line.
    """
    sums = check(folder)
    missing = [name for name in NEEDED if name not in sums]
    if missing:
        raise ValueError(f"{folder}: {missing[0]} is missing; pull it again")
    said = json.loads((folder / VERSION).read_text(encoding="utf-8"))
    description, encoder = read_description(folder), read_encoder(folder)
    far = None
    if PROGRAM in sums:
        call = open_program(read_checked(folder, PROGRAM), str(folder / PROGRAM)).module()
        clips = [random_clips(description, batch) for batch in BATCHES]
        far = check_agrees(call, encoder, clips, str(folder / PROGRAM))
    compared = None
    if against is not None:
        version = entry(connect(tracking_uri, create=False), against)
        if CONFIG_TAG not in version.tags:
            raise ValueError(f"{version.uri} was registered without checksums of its config; pull it again instead")
        found = digest(folder / CONFIG)  # it names the weights' checksum, which was looked at
        if found != version.tags[CONFIG_TAG]:
            raise ValueError(
                f"{folder}: checksum {found[:12]} of its {CONFIG} is not {version.tags[CONFIG_TAG][:12]}, which the registry has for "
                f"{version.uri}: another version, or changed; pull it again"
            )
        compared = version.uri
    return Verified(str(said.get("uri", "?")), len(sums), description, far, compared)
