"""What an attacker may do to an image: a norm ball around it, cut by the box [0, 1] of valid pixels."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor

from l2l_experiment.errors import UserError

Norm = Literal["linf", "l2", "l1"]


SMALLEST = 1e-6  # radius: single precision tells pixels near 1 apart by 6e-8


@dataclass(frozen=True)
class Threat:
    """Perturbations δ of images x in [0, 1] with ‖δ‖ ≤ radius and x + δ in [0, 1]. Images and perturbations have the
    shape (batch, channels, height, width); each sample has a ball of its own. The radius is on the scale of the pixels,
    [0, 1], whatever normalisation a model does inside; it may be a text such as "8/255" (`parse_radius`)."""

    norm: Norm
    radius: float

    def __post_init__(self) -> None:
        if not isinstance(self.radius, Real):
            object.__setattr__(self, "radius", parse_radius(self.radius))
        if self.norm not in get_args(Norm):
            raise UserError(f"the norm must be one of {', '.join(get_args(Norm))}, got {self.norm!r}")
        if not (math.isfinite(self.radius) and self.radius > 0):
            raise UserError(f"the radius of the threat model must be a positive number, got {self.radius}")
        if self.radius < SMALLEST:
            raise UserError(f"a radius of {self.radius:g} is lost in rounding; it must be at least {SMALLEST:g}")

    def check(self, shape: tuple[int, ...]) -> None:
        """UserError if the radius is implausible for images of this shape (channels, height, width)."""
        pixels = math.prod(shape)
        # From this radius on any image can be turned into uniform grey, so that nothing can be learned.
        grey = {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[self.norm]
        if self.radius >= grey:
            raise UserError(
                f"a radius of {self.radius:g} in {self.norm} can turn every image of {pixels} pixel values in [0, 1] "
                f"into uniform grey; it must be below {grey:g} (for 8 of 255 grey levels write 8/255)"
            )

    def project(self, delta: Tensor, images: Tensor) -> Tensor:
        """The perturbation nearest to `delta` (in ℓ2) that is in the ball and keeps images + δ in [0, 1]."""
        if self.norm == "linf":
            ball = delta.clamp(-self.radius, self.radius)
            return torch.minimum(torch.maximum(ball, -images), 1 - images)
        size = delta.abs().flatten(1)
        room = torch.where(delta > 0, 1 - images, images).flatten(1)
        shrink = _shrink_l2 if self.norm == "l2" else _shrink_l1
        return delta.sign() * shrink(size, room, self.radius).view_as(delta)

    def random_start(self, images: Tensor) -> Tensor:
        """A draw that is uniform in the ball, then projected into the box."""
        if self.norm == "linf":
            noise = torch.empty_like(images).uniform_(-self.radius, self.radius)
        else:
            # Normal (ℓ2) and two-sided exponential (ℓ1) vectors point everywhere alike on their norm's sphere.
            noise = torch.randn_like(images).flatten(1)
            if self.norm == "l1":
                noise = noise.sign() * torch.empty_like(noise).exponential_()
            noise = noise / noise.norm(p=2 if self.norm == "l2" else 1, dim=1, keepdim=True)
            depth = torch.rand_like(noise[:, :1]) ** (1 / noise.shape[1])
            noise = (self.radius * depth * noise).view_as(images)
        return self.project(noise, images)

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each sample's perturbation, shape (batch,)."""
        return delta.flatten(1).norm(p={"linf": math.inf, "l2": 2, "l1": 1}[self.norm], dim=1)

    def __str__(self) -> str:
        levels = self.radius * 255
        in_levels = self.norm == "linf" and abs(levels - round(levels)) < 1e-6  # of grey, of one pixel
        return f"{self.norm} {levels:.0f}/255" if in_levels else f"{self.norm} {self.radius:g}"


def _shrink_l2(size: Tensor, room: Tensor, radius: float) -> Tensor:
    """min(s·size, room) with the largest s ≤ 1 for which its ℓ2 norm is at most `radius`; all of shape (batch, n). The
    optimality conditions of the projection onto ball and box: coordinates at the box stay there, all others are scaled
    alike. As s grows, coordinates reach the box in the order of room/size, so s lies in a known stretch."""
    boxed = torch.minimum(size, room)
    limit = torch.where(size > 0, room / size.clamp(min=torch.finfo(size.dtype).tiny), torch.inf)
    limit, order = limit.sort(dim=1)
    at_box = room.gather(1, order).square()
    free = size.gather(1, order).square()
    stuck = at_box.cumsum(1) - at_box  # squares of the coordinates that reach the box before this one
    loose = free.flip(1).cumsum(1).flip(1)  # of this one and all that reach it later
    # The squared norm when s equals this coordinate's limit grows along the row: count how often it is within radius.
    reached = stuck + limit.clamp(max=1e12).square() * loose <= radius**2
    index = reached.sum(1, keepdim=True).clamp(max=size.shape[1] - 1)
    left = (radius**2 - stuck.gather(1, index)).clamp(min=0)
    scale = (left / loose.gather(1, index).clamp(min=torch.finfo(size.dtype).tiny)).sqrt()
    inside = boxed.norm(dim=1, keepdim=True) <= radius
    return torch.where(inside, boxed, torch.minimum(scale.clamp(max=1) * size, room))


def _shrink_l1(size: Tensor, room: Tensor, radius: float) -> Tensor:
    """clamp(size − m, 0, room) with the smallest m ≥ 0 for which its sum is at most `radius`; all of shape (batch, n).
    The sum falls with m and is linear between the points where a coordinate leaves the box or reaches zero (after the
    sorting algorithm of Duchi et al., 2008, with a box)."""
    boxed = torch.minimum(size, room)
    leaves_box = (size - room).clamp(min=0)
    points, order = torch.cat([leaves_box, size], dim=1).sort(dim=1)
    turns = torch.cat([-torch.ones_like(size), torch.ones_like(size)], dim=1).gather(1, order)
    slope = turns.cumsum(1)  # behind each point: minus the number of coordinates that shrink there
    steps = torch.diff(points, dim=1, prepend=torch.zeros_like(points[:, :1]))
    before = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], dim=1)
    total = boxed.sum(1, keepdim=True) + (before * steps).cumsum(1)
    # The last point whose sum is still above the radius; from there the line leads down to it.
    index = ((total > radius).sum(1, keepdim=True) - 1).clamp(min=0)
    down = (total.gather(1, index) - radius) / (-slope.gather(1, index)).clamp(min=1)
    threshold = points.gather(1, index) + down
    inside = boxed.sum(1, keepdim=True) <= radius
    return torch.where(inside, boxed, torch.minimum((size - threshold).clamp(min=0), room))


def parse_radius(text: str | float, deviation: float | None = None) -> float:
    """A radius as a fraction ('8/255') or a number ('0.1'), with 'sd' behind it in units of `deviation` of the pixels,
    as in papers that standardise images before they perturb them (Shaham et al., 2015). UserError for anything else,
    and for 'sd' without a deviation."""
    text = str(text)
    if text.endswith("sd") and deviation is None:
        raise UserError(
            f"a radius in standard deviations, {text}, is one of a data set's: give it as eps of its settings"
        )
    unit = deviation if text.endswith("sd") else 1.0
    numerator, slash, denominator = text.removesuffix("sd").partition("/")
    try:
        return unit * (float(numerator) / float(denominator) if slash else float(numerator))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"a radius is a number, or a fraction such as 8/255, got {text!r}") from None


def tidy_radius(text: str | float) -> str:
    """One spelling for each radius, so that runs with equal radii are seen as equal: '.10' and '51/510' are '0.1',
    '16/510' is '8/255'. UserError as for `parse_radius`."""
    text = str(text)
    unit = "sd" if text.endswith("sd") else ""
    radius = parse_radius(text.removesuffix("sd"))
    if float(f"{radius:.4g}") == radius or not math.isfinite(radius):
        return f"{radius:.4g}{unit}"
    levels = round(255 * radius)
    return f"{levels}/255{unit}" if levels / 255 == radius else f"{radius!r}{unit}"
