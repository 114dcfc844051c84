"""The config of a linear softmax classifier on an encoder's features, frozen or fine-tuned; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_tools.config import Config
from fbm_dist.objectives.families import DEFAULT, Pretraining

if TYPE_CHECKING:
    from fbm_dist.objectives.classifier.objective import Classifier
    from fbm_dist.schema import ClipSpec


class ClassifierConfig(Config):
    """Action recognition as in the FBM paper: decoders dropped, one linear layer on the flattened features, cross entropy."""

    family: Literal["classifier"] = "classifier"
    trunk: Pretraining = DEFAULT  # the family and size whose encoder is classified with
    label: str = "action"  # which label of the data set
    classes: int = Field(2, ge=2)
    frozen: bool = False  # True: only the linear layer learns, encoder in eval mode
    encoder_gradient: float = Field(
        1.0, ge=0, le=1
    )  # factor on the gradient into the encoder; 0: none, BatchNorm still adapts

    def check_clip(self, clip: ClipSpec) -> None:
        """Whether its encoder takes clips that are cut like this.

        Raises:
            ValueError: naming the keys that disagree.
        """
        self.trunk.check_encoded(clip)

    def pictures(self, clip: ClipSpec) -> ClipSpec:
        """As the trunk's family has it."""
        return self.trunk.pictures(clip)

    def build(self) -> Classifier:
        """The objective with freshly initialised weights."""
        from fbm_dist.objectives.classifier.objective import Classifier

        return Classifier(self)
