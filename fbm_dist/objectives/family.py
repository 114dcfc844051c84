"""Family: what the config of every model family tells the rest: what it builds, and which clips it takes. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from data_tools.config import Config

if TYPE_CHECKING:
    from fbm_dist.objectives.objective import Encoder, Objective
    from fbm_dist.schema import ClipSpec


class Family(Config):
    """The config of a family that pretrains an encoder. A room's config is one of these, with a literal `family`.

    Attributes:
        frames: T of the clips that the *encoder* takes, in probes and evaluation.
        size: side of its square frames in pixels.
        needs_masks: its loss looks at `Clip.mask`.
        foreground: what the foreground of a Segmenter of this family is called in tables.
    """

    family: str
    frames: int
    size: int
    needs_masks: ClassVar[bool] = False
    foreground: ClassVar[str] = "implicit"

    def check_clip(self, clip: ClipSpec) -> None:
        """Whether this family trains on clips that are cut like this; here: those that its encoder takes, with masks where needed.

        Raises:
            ValueError: naming the keys that disagree.
        """
        self.check_encoded(clip)
        self.check_masks(clip)

    def check_encoded(self, clip: ClipSpec) -> None:
        """Whether the encoder takes clips that are cut like this.

        Raises:
            ValueError: naming the keys that disagree.
        """
        if clip.length != self.frames:
            negative = " (with the negative)" if clip.negative else ""
            raise ValueError(
                f"data.clip.frames is {clip.length}{negative}, but the objective's frames is {self.frames}; make them equal"
            )
        self.check_size(clip)

    def check_size(self, clip: ClipSpec) -> None:
        """Whether frames have the encoder's size.

        Raises:
            ValueError: naming both keys.
        """
        if clip.size != self.size:
            raise ValueError(f"data.clip.size is {clip.size}, but the objective's size is {self.size}; make them equal")

    def check_masks(self, clip: ClipSpec) -> None:
        """Whether masks are there, where the loss needs them.

        Raises:
            ValueError: saying which key to set.
        """
        if self.needs_masks and not (clip.mask or clip.use_truth_as_mask):
            raise ValueError(
                f"the family {self.family!r} learns from masks, and data.clip.mask is false; set data.clip.mask=true "
                "(the data must be prepared with masks)"
            )

    def pictures(self, clip: ClipSpec) -> ClipSpec:
        """How clips are cut for the encoder in probes and evaluation, of an encoder that was trained on `clip`.

        The clip's centre, without masks, other films or augmentation. Evenly spaced frames stay as they are; where the frames of a
        training clip are a tuple for a loss (`offsets`, `within`), the encoder's own number of frames is spread over what it covers.
        """
        plain = clip.pictures
        if not clip.offsets and clip.within is None:
            return plain
        stride = max(1, clip.span // self.frames) if self.frames > 1 else 1
        return plain.model_copy(update={"frames": self.frames, "offsets": (), "within": None, "stride": stride})

    def segmented(self, clip: ClipSpec) -> ClipSpec:
        """How clips are cut for `Segmenter.segment`, of an objective that was trained on `clip`: as for the encoder."""
        return self.pictures(clip)

    def build(self) -> Objective:
        """The objective with freshly initialised weights."""
        raise NotImplementedError

    def build_encoder(self) -> Encoder:
        """The encoder alone: what `registry.load_encoder` fills with weights."""
        raise NotImplementedError
