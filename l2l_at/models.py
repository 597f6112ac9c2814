"""Classifiers: ResNet, PreActResNet and WideResNet in their CIFAR form, and a small network for digits.

Every classifier takes images in [0, 1] and normalises them inside: perturbations keep the scale of the pixels."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from l2l_at.datasets import Moments
from l2l_experiment.errors import UserError


class Normalised(nn.Module):
    """A network behind the normalisation of its input; called with images in [0, 1], answers with logits."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        # Constants of the architecture, not weights: they need no place in a checkpoint.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.deviation)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width (at stride 1), without bias: a batch normalisation follows it."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, then ReLU (He et al., 2016a)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = conv(inputs, outputs, stride=stride), conv(outputs, outputs)
        self.body = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class PreActBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus shortcut (He et al., 2016b). Where the shape changes, the shortcut is a 1×1
    convolution: of the activated input in wide networks (Zagoruyko and Komodakis, 2016), of the block's raw input in
    the PreActResNet-18 that the field's fast methods use."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, shortcut_of: str = "raw") -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None
        self.of_activated = shortcut_of == "activated"

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active if self.of_activated else x)
        return self.conv2(torch.relu(self.norm2(self.conv1(active)))) + shortcut


def _stages(block: Callable[..., nn.Module], widths: tuple[int, ...], depth: int, inputs: int) -> nn.Sequential:
    """Stages of `depth` blocks, the first of each (but of the first stage) at stride 2."""
    blocks = []
    for stage, outputs in enumerate(widths):
        for index in range(depth):
            blocks.append(block(inputs, outputs, 2 if stage and not index else 1))
            inputs = outputs
    return nn.Sequential(*blocks)


def _norm(width: int) -> tuple[nn.Module, ...]:
    return nn.BatchNorm2d(width), nn.ReLU()


def _head(width: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


def resnet18(channels: int, classes: int, width: int = 64) -> nn.Sequential:
    """ResNet-18 for small images: a 3×3 stem at stride 1 and no pooling before the blocks."""
    stem, widths = (conv(channels, width), *_norm(width)), (width, 2 * width, 4 * width, 8 * width)
    return nn.Sequential(*stem, _stages(BasicBlock, widths, 2, width), *_head(8 * width, classes))


def preact_resnet18(channels: int, classes: int, width: int = 64, depth: int = 2) -> nn.Sequential:
    """PreActResNet-18 for small images, with the batch normalisation and ReLU at the end that FAST-BAT's code has."""
    stem, widths = conv(channels, width), (width, 2 * width, 4 * width, 8 * width)
    stages = _stages(PreActBlock, widths, depth, width)
    return nn.Sequential(stem, stages, *_norm(8 * width), *_head(8 * width, classes))


def wide_resnet(channels: int, classes: int, depth: int, widen: int) -> nn.Sequential:
    """WRN-depth-widen (Zagoruyko and Komodakis, 2016), without dropout."""
    stem, block, width = conv(channels, 16), partial(PreActBlock, shortcut_of="activated"), 64 * widen
    stages = _stages(block, (16 * widen, 32 * widen, width), (depth - 4) // 6, 16)
    return nn.Sequential(stem, stages, *_norm(width), *_head(width, classes))


def small_cnn(channels: int, classes: int, width: int = 32) -> nn.Sequential:
    """Two convolutions and two linear layers, for 8 × 8 digits."""
    first, second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
    head = nn.Flatten(), nn.Linear(2 * width * 16, 4 * width), nn.ReLU(), nn.Linear(4 * width, classes)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2), *head)


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "small-cnn": small_cnn,
    "preact-tiny": partial(preact_resnet18, width=16, depth=1),
    "resnet18": resnet18,
    "preactresnet18": preact_resnet18,
    "wrn-28-10": partial(wide_resnet, depth=28, widen=10),
    "wrn-34-10": partial(wide_resnet, depth=34, widen=10),
}


def check(name: str, shape: tuple[int, int, int]) -> None:
    """UserError if there is no classifier of that name, or not for images of a shape (channels, height, width)."""
    if name not in NETWORKS:
        raise UserError(f"--model must be one of {', '.join(NETWORKS)}, got {name!r}")
    if (name == "small-cnn") != (shape[1:] == (8, 8)):
        size = f"{shape[1]} × {shape[2]} pixels"
        raise UserError(f"--model {name} does not fit images of {size}: small-cnn is for 8 × 8, all others for larger")


def build(name: str, moments: Moments, classes: int) -> Normalised:
    """A fresh classifier for images with such moments, convolutions after He et al. (2015). Its weights are laid out
    channels-last, which makes the same numbers up to rounding in less time, on CPU and CUDA."""
    network = NETWORKS[name](len(moments[0]), classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return Normalised(network, *moments).to(memory_format=torch.channels_last)
