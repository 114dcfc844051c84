"""Every constant of uNLC as a field: unit, source, default. Imports no array library.

Sources: [P] Pathak et al. 2017 section 5.1 and its published code's full run; [N] Faktor & Irani 2014, which it follows;
[D] this project, chosen on the 22 DAVIS 2016 training sequences that the benchmark does not report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from data_tools.config import Config


class Motion(Config):
    """Motion saliency: optical flow to the frames around, and what deviates from the dominant motion."""

    size: int = Field(100, ge=16, le=1024)  # shorter side of the frames that flow is computed on, pixels [P]
    aspect: Literal["native", "square"] = (
        "native"  # square: both sides are `size` [P], which bends orientations in wide films
    )
    preset: Literal["ultrafast", "fast", "medium"] = "fast"  # of DIS flow; [P] has pyflow, a hundred times slower
    finest: int = Field(
        0, ge=0, le=4
    )  # last level of its pyramid: 0 is flow at every pixel; DIS's own 1 or 2 smears small objects [D]
    baselines: tuple[int, ...] = (1,)  # flow from frame i to frames i-j and i+j [D]; [P] (1, 2, 3)
    dominant: Literal["histogram", "plane"] = (
        "plane"  # histogram: static / translating / ignored [P]; plane: robust 8-parameter
    )
    static: float = Field(1.0, ge=0)  # histogram: a median flow below it, in pixels, is a static camera [P]
    bins: int = Field(20, ge=2)  # histogram: of orientation over (-pi, pi] [P]
    translating: float = Field(0.75, gt=0, le=1)  # histogram: share of flow in one bin that makes it dominant [P]
    inlier: float = Field(1.0, gt=0)  # plane: a pixel follows the dominant motion within so many pixels [D]
    min_inliers: float = Field(0.3, ge=0, le=1)  # plane: a flow in which fewer pixels follow has no dominant motion [D]
    power: float = Field(1.0, gt=0)  # plane: saliency is the residual to this power [D]; [P] squares it
    box: int = Field(5, ge=1)  # side of the averaging box, pixels [P]
    border: float = Field(0.125, ge=0, lt=0.5)  # this share of the shorter side starts without votes [P]
    floor: float = Field(0.25, ge=0)  # a largest saliency below it (pixels^power) is not stretched to 1 [D]; [P] 0
    scale: Literal["shot", "frame"] = (
        "shot"  # saliency is divided by the maximum of the whole shot [P] or of each frame
    )
    min_dominant: float = Field(0.5, ge=0, le=1)  # fewer frames with a dominant motion: appearance votes instead [P]


class Superpixels(Config):
    """SLIC regions (Achanta et al. 2012), each frame by itself."""

    number: int = Field(400, ge=4)  # asked for, per frame [P]
    compactness: float = Field(10.0, gt=0)  # space against colour, in Lab units [P]
    blur: float = Field(1.0, ge=0)  # sigma of the Gaussian before, pixels [D]; [P] 5
    iterations: int = Field(4, ge=1)  # of k-means [D]; [P] 10
    # whether parts that lie apart from their region go to another one [D]; [P] true. In tensors they never do
    connected: bool = False
    # they are found in a frame smaller by this factor, where that has enough pixels [D]; [P] 1
    shrink: int = Field(2, ge=1)


class Graph(Config):
    """Who may vote for whom: nearest neighbours in appearance and place, in a window of frames."""

    window: int = Field(15, ge=0)  # frames to either side [P]
    stride: int = Field(3, ge=1)  # every so many frames of the window [D]; [P] 1
    neighbours: int = Field(
        40, ge=1
    )  # M, of a region in its whole window, itself included [D]; [P] 62 = 2 * (2 * 15 + 1)
    bandwidth: float = Field(0.1, gt=0)  # sigma^2 of exp(-d^2 / sigma^2) [P]


class Voting(Config):
    """Consensus: each region takes the weighted mean of its neighbours' votes, again and again."""

    iterations: int = Field(50, ge=0)  # [P]
    restart: float = Field(
        0.2, ge=0, lt=1
    )  # share of the first votes in every round: they cannot drift away [D]; [P] 0


class UNLC(Config):
    """Unsupervised non-local consensus voting. `UNLC()` is the project's choice, `UNLC.paper()` the published one."""

    working_side: int = Field(
        320, ge=16
    )  # longer side of the frames worked on, pixels; frames are only made smaller. [P] 650
    max_frames: int = Field(110, ge=4)  # of a shot processed at once [P]
    long_shots: Literal["windows", "decimate"] = (
        "windows"  # decimate: every (T // 110 + 1)-th frame [P], the rest interpolated
    )
    overlap: int = Field(15, ge=0)  # windows: frames that two neighbours share and fade over
    motion: Motion = Motion()
    superpixels: Superpixels = Superpixels()
    graph: Graph = Graph()
    voting: Voting = Voting()
    blob_threshold: float = Field(0.7, gt=0, lt=1)  # blobs are connected pixels above it [P]
    blob_size: float = Field(
        0.6, ge=0, le=1
    )  # a blob smaller than this share of its frame's largest becomes "don't care" [P]
    guided_radius: int = Field(4, ge=0)  # of the edge-aware filter in place of the CRF, pixels [D]; 0: off [P]
    guided_epsilon: float = Field(
        1e-3, gt=0
    )  # its regularisation: variance of grey values in [0, 1] that counts as an edge

    @model_validator(mode="after")
    def _consistent(self) -> UNLC:
        if self.overlap >= self.max_frames // 2:
            raise ValueError(f"overlap {self.overlap} must be less than half of max_frames {self.max_frames}")
        if any(j < 1 for j in self.motion.baselines) or not self.motion.baselines:
            raise ValueError("motion.baselines must be frames ahead, each at least 1, e.g. [1, 2, 3]")
        return self

    @classmethod
    def paper(cls) -> UNLC:
        """What the paper's published code runs, with DIS flow in place of pyflow and its defects mended."""
        return cls(
            working_side=650,
            long_shots="decimate",
            motion=Motion(aspect="square", preset="medium", baselines=(1, 2, 3), dominant="histogram", floor=0.0),
            superpixels=Superpixels(blur=5.0, iterations=10, connected=True, shrink=1),
            graph=Graph(stride=1, neighbours=62),
            voting=Voting(restart=0.0),
            guided_radius=0,
        )


def _kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "section"


def _preset(value: UNLC | str) -> UNLC:
    """What a name stands for: what is kept is its numbers."""
    if isinstance(value, str):
        return UNLC.paper() if value == "paper" else UNLC()
    return value


if TYPE_CHECKING:  # what a reader of a config gets
    Preset = UNLC
else:  # what may be written: settings, or the name of some
    _Name = Annotated[Literal["fast", "default", "paper"], Tag("name")]
    Preset = Annotated[Annotated[UNLC, Tag("section")] | _Name, Discriminator(_kind), AfterValidator(_preset)]
