"""Settings of `python -m data_tools synthesize`; imports neither torch nor OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_tools.config import Config, ConfigError

Motion = Literal["right", "left", "up", "down", "turn", "grow", "shrink", "wave"]
Thing = Literal["ball", "box", "star", "figure", "blob"]
Background = Literal["building", "plants", "stone", "room", "space"]
Camera = Literal["static", "moving"]

COVERAGE = (0.05, 0.12)
FACTORS = ("motion", "object", "background", "camera")  # the label columns, in this order


class Split(Config):
    """Shares of the films, in parts: they need not add up to 100. A film is never cut apart."""

    train: int = Field(70, ge=0)
    val: int = Field(10, ge=0)
    test: int = Field(20, ge=0)

    @model_validator(mode="after")
    def _some(self) -> Split:
        if not self.train + self.val + self.test:
            raise ValueError("all shares are 0; give at least one, e.g. split.train=1")
        return self


class Synthesize(Config):
    """Films of several shots; in each, one thing moves over a photograph. Sizes are (height, width) in pixels.

    Each list of classes is a factor: a class is drawn for every shot, balanced within train, val and test, and paired
    evenly with the other factors' classes, so that chance is 1 / number of classes.
    """

    output: Path
    films: int = Field(24, ge=1)
    seed: int = Field(0, ge=0)
    shots: int = Field(3, ge=1, description="shots of a film, with hard cuts between them")
    frames: tuple[int, int] = (40, 64)  # shortest and longest shot; 16 frames of either show the motion
    size: tuple[int, int] = (144, 176)  # VP9 on NVDEC needs 128 or more on both sides
    fps: int = Field(25, ge=1, le=240)
    motions: tuple[Motion, ...] = ("right", "left", "up", "down", "turn", "grow", "shrink", "wave")
    objects: tuple[Thing, ...] = ("ball", "box", "star", "figure")
    backgrounds: tuple[Background, ...] = ("building", "plants", "stone", "room")
    cameras: tuple[Camera, ...] = ("static", "moving")
    # the thing's share of the picture, least and most; one that would have no room to move is made smaller
    coverage: tuple[float, float] = COVERAGE
    distractors: int = Field(0, ge=0, le=8, description="small things that fly about behind the object, in no mask")
    noise: tuple[float, float] = (1.0, 4.0)  # sensor noise of a shot: standard deviation in grey levels of 255
    flicker: float = Field(0.02, ge=0, le=0.2)  # brightness of a frame varies by this share
    codec: Literal["h264", "vp9"] = "h264"
    crf: int | None = Field(None, ge=0, le=63)  # compression, lower is better; None: 23 for h264, 33 for vp9
    split: Split = Split()
    workers: int | None = Field(None, ge=1)  # processes; None: one for each core. The bytes do not depend on it

    @model_validator(mode="after")
    def _consistent(self) -> Synthesize:
        for name, (low, high) in (("frames", self.frames), ("noise", self.noise), ("coverage", self.coverage)):
            if low > high:
                raise ValueError(f"{name}: {low} is above {high}; give the smaller one first")
        if self.frames[0] < 2:
            raise ValueError("frames: a shot needs 2 frames or more for anything to move")
        if self.noise[0] < 0:
            raise ValueError("noise: a standard deviation cannot be negative")
        if not 0 < self.coverage[0] <= self.coverage[1] <= 0.5:
            raise ValueError("coverage: shares of the picture, above 0 and at most 0.5, e.g. coverage=[0.15,0.3]")
        if min(self.size) < 64 or self.size[0] % 2 or self.size[1] % 2:
            raise ValueError("size: height and width must be even and 64 or more")
        if self.codec == "h264" and (self.crf or 0) > 51:
            raise ValueError("crf: h264 goes from 0 (lossless) to 51")
        for name in ("motions", "objects", "backgrounds", "cameras"):
            classes = getattr(self, name)
            if not classes or len(set(classes)) < len(classes):
                raise ValueError(f"{name}: give each class once, and at least one")
        return self

    @property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """Label column -> its classes."""
        return dict(zip(FACTORS, (self.motions, self.objects, self.backgrounds, self.cameras), strict=True))


class MovingMnist(Config):
    """Films of digits that bounce about a black square of 64x64 (Denton and Birodkar, 2017, section 4.2), one shot each.

    Digit i is drawn in colour channel i (red, green, blue), for without colours nothing would say which place belongs to which digit.
    Films of the split test show digits of the file `test`, those of val every tenth of `train`, those of train the others.
    """

    kind: Literal["moving_mnist"]
    output: Path
    train: Path = Field(description="npz file of x (n, 28, 28) in 0 to 255 and y (n), the digits' classes")
    test: Path | None = None  # another such file; None: no film is of the split test
    films: int = Field(1000, ge=1)
    seed: int = Field(0, ge=0)
    frames: int = Field(40, ge=2)  # of every film
    digits: int = Field(2, ge=1, le=3)
    # pixels of the film's side for one of the 64: with 2 the colours, which video stores at half the resolution, stay apart
    scale: int = Field(2, ge=1, le=8)
    fps: int = Field(25, ge=1, le=240)
    codec: Literal["h264", "vp9"] = "h264"
    crf: int | None = Field(10, ge=0, le=51)  # compression, lower is better; None: 23 for h264, 33 for vp9
    split: Split = Split()
    workers: int | None = Field(None, ge=1)  # processes; None: one for each core. The bytes do not depend on it

    @model_validator(mode="after")
    def _consistent(self) -> MovingMnist:
        if self.split.test and self.test is None:
            raise ValueError("test: films of the split test need digits of their own; give test=FILE, or split.test=0")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return 64 * self.scale, 64 * self.scale

    @property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """Label column -> its classes."""
        return {f"digit_{i}": tuple("0123456789") for i in range(self.digits)}


Films = Synthesize | MovingMnist


def settings_of(tree: Mapping[str, Any]) -> type[Films]:
    """What a config's tree asks for: things over photographs, unless `kind` says otherwise.

    Raises:
        ConfigError: there is no such kind.
    """
    if "kind" not in tree:
        return Synthesize
    if tree["kind"] != "moving_mnist":
        raise ConfigError(f"kind: {tree['kind']!r} is not known; give moving_mnist, or leave it out")
    return MovingMnist
