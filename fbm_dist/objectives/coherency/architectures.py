"""The base networks as tables of layers, and the sides of their maps; imports no torch, so that a config can refuse a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MULTIPLE = 4  # of every channel count, at any width: two groups of at least two

Name = Literal["caffenet_zf", "alexnet", "cifar_quick", "googlenet"]


@dataclass(frozen=True)
class Convolution:
    """A square convolution with a bias; ReLU follows. `std`, `bias`: of its original initial values; None: Xavier's."""

    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    std: float | None = 0.01
    bias: float = 0.1
    relu: bool = True


@dataclass(frozen=True)
class Pooling:
    """Caffe's pooling: a last window may reach over the edge; averages are over what lies inside."""

    kind: Literal["max", "average"]
    kernel: int = 3
    stride: int = 2


@dataclass(frozen=True)
class ReLU:
    """Where it does not follow its convolution at once."""


@dataclass(frozen=True)
class ResponseNorm:
    """Local response normalisation over 5 channels, alpha 1e-4, beta 0.75 (Krizhevsky et al., 2012, section 3.3)."""


@dataclass(frozen=True)
class Inception:
    """Four paths side by side (Szegedy et al., 2015, Table 1): 1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 pooling then 1x1."""

    one: int
    three_reduced: int
    three: int
    five_reduced: int
    five: int
    pooled: int

    @property
    def out(self) -> int:
        """Channels of the paths, joined, at width 1."""
        return self.one + self.three + self.five + self.pooled


@dataclass(frozen=True)
class GlobalAverage:
    """The mean over the whole map."""


Layer = Convolution | Pooling | ReLU | ResponseNorm | Inception | GlobalAverage


@dataclass(frozen=True)
class Linear:
    """A fully connected layer; ReLU follows. `out` None: the embedding, whose length the loss says."""

    out: int | None
    std: float | None = 0.01
    bias: float = 0.1


@dataclass(frozen=True)
class Architecture:
    """A base network: the trunk in order, then its fully connected layers (fc6, fc7), of which the last is the embedding."""

    size: int  # side of the original's input
    trunk: dict[str, Layer]
    linear: dict[str, Linear]


def _inception(*channels: int) -> Inception:
    return Inception(*channels)


MAX, AVERAGE, NORM = Pooling("max"), Pooling("average"), ResponseNorm()

# What the authors trained: CaffeNet with the first layers of Zeiler and Fergus, as in LRCN's single-frame network.
CAFFENET_ZF = Architecture(
    size=227,
    trunk={
        "conv1": Convolution(96, 7, stride=2),
        "pool1": MAX,
        "norm1": NORM,
        "conv2": Convolution(384, 5, stride=2, groups=2),
        "pool2": MAX,
        "norm2": NORM,
        "conv3": Convolution(512, 3, padding=1),
        "conv4": Convolution(512, 3, padding=1, groups=2),
        "conv5": Convolution(384, 3, padding=1, groups=2),
        "pool5": MAX,
    },
    linear={"fc6": Linear(4096), "fc7": Linear(None)},
)
# What the paper's section 3.3 names: Krizhevsky et al. (2012), normalised before it is pooled.
ALEXNET = Architecture(
    size=227,
    trunk={
        "conv1": Convolution(96, 11, stride=4),
        "norm1": NORM,
        "pool1": MAX,
        "conv2": Convolution(256, 5, padding=2, groups=2),
        "norm2": NORM,
        "pool2": MAX,
        "conv3": Convolution(384, 3, padding=1),
        "conv4": Convolution(384, 3, padding=1, groups=2),
        "conv5": Convolution(256, 3, padding=1, groups=2),
        "pool5": MAX,
    },
    linear={"fc6": Linear(4096), "fc7": Linear(None)},
)
# Caffe's cifar10_quick: the first ReLU stands after its pooling, and ip1 is fc6 here.
CIFAR_QUICK = Architecture(
    size=32,
    trunk={
        "conv1": Convolution(32, 5, padding=2, std=0.0001, bias=0.0, relu=False),
        "pool1": MAX,
        "relu1": ReLU(),
        "conv2": Convolution(32, 5, padding=2, bias=0.0),
        "pool2": AVERAGE,
        "conv3": Convolution(64, 5, padding=2, bias=0.0),
        "pool3": AVERAGE,
    },
    linear={"fc6": Linear(None, std=0.1, bias=0.0)},
)
# Inception v1 (Szegedy et al., 2015, Table 1) without the heads in its middle, as Caffe's bvlc_googlenet orders it.
GOOGLENET = Architecture(
    size=224,
    trunk={
        "conv1": Convolution(64, 7, stride=2, padding=3, std=None, bias=0.2),
        "pool1": MAX,
        "norm1": NORM,
        "reduce2": Convolution(64, 1, std=None, bias=0.2),
        "conv2": Convolution(192, 3, padding=1, std=None, bias=0.2),
        "norm2": NORM,
        "pool2": MAX,
        "inception3a": _inception(64, 96, 128, 16, 32, 32),
        "inception3b": _inception(128, 128, 192, 32, 96, 64),
        "pool3": MAX,
        "inception4a": _inception(192, 96, 208, 16, 48, 64),
        "inception4b": _inception(160, 112, 224, 24, 64, 64),
        "inception4c": _inception(128, 128, 256, 24, 64, 64),
        "inception4d": _inception(112, 144, 288, 32, 64, 64),
        "inception4e": _inception(256, 160, 320, 32, 128, 128),
        "pool4": MAX,
        "inception5a": _inception(256, 160, 320, 32, 128, 128),
        "inception5b": _inception(384, 192, 384, 48, 128, 128),
        "average": GlobalAverage(),
    },
    linear={"fc6": Linear(None, std=None, bias=0.2)},
)
ARCHITECTURES: dict[Name, Architecture] = {
    "caffenet_zf": CAFFENET_ZF,
    "alexnet": ALEXNET,
    "cifar_quick": CIFAR_QUICK,
    "googlenet": GOOGLENET,
}


def scaled(count: int, width: float) -> int:
    """A channel count at this width: a multiple of 4, at least 4; `count` itself at width 1."""
    return max(MULTIPLE, MULTIPLE * round(count * width / MULTIPLE))


def sides(name: Name, size: int) -> dict[str, int]:
    """The side of the map after each layer of the trunk, for square frames of `size` pixels; it ends at a layer that has none left."""
    found: dict[str, int] = {}
    side = size
    for layer_name, layer in ARCHITECTURES[name].trunk.items():
        side = found[layer_name] = _side(layer, side)
        if side < 1:
            break
    return found


def smallest(name: Name) -> int:
    """The smallest side of a frame that leaves a map at every layer."""
    return next(size for size in range(1, ARCHITECTURES[name].size + 1) if min(sides(name, size).values()) > 0)


def _side(layer: Layer, side: int) -> int:
    if isinstance(layer, Convolution):
        return (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
    if isinstance(layer, Pooling):
        return -((layer.kernel - side) // layer.stride) + 1  # rounded up
    return 1 if isinstance(layer, GlobalAverage) else side
