"""How observations and actions of an environment become arrays for policy and discriminator, and go back.

Every question about a space is asked here. Observations of any space become one array: a vector, or for images frames
with their channels first. Actions stay what the environment takes; the policy may act in units of their bounds."""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces, wrappers
from gymnasium.utils import RecordConstructorArgs
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from l2l_experiment.errors import UserError

BOUND_TOLERANCE = 1e-4  # by which recorded actions may leave their bounds: the rounding of a float32 policy
SMALLEST_FRAME = 36  # height and width below which Stable-Baselines3's convolutions have nothing left
UNSCALED_HALF_WIDTHS = (0.5, 2.0)  # from, to below: bounds that fit a policy's initial std need no rescaling


class ChannelsFirst(gym.ObservationWrapper, RecordConstructorArgs):
    """Frames (H, W, C), or grey ones (H, W), as (C, H, W): the order that Stable-Baselines3's networks take."""

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        low, high = (
            channels_first(bound[None])[0] for bound in (env.observation_space.low, env.observation_space.high)
        )
        self.observation_space = spaces.Box(low, high, dtype=np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return channels_first(observation[None])[0]


class Observations:
    """Observations of an environment: what the policy sees of them (`space`), and what the discriminator does.

    UserError for a space that is neither an image nor can be flattened (text, graphs, sequences)."""

    kind = "observations"

    def __init__(self, space: gym.Space, name: str) -> None:
        self.raw, self.name, self.image = space, name, is_image(space)
        if self.image:
            frame = channels_first(space.low[None])[0] if needs_transposing(space) else space.low
            self.space = spaces.Box(0, 255, frame.shape, np.uint8)
        else:
            if not can_flatten(space):
                raise UserError(f"{name} has observations {space}; GAIL here takes what can be flattened into an array")
            self.space = spaces.flatten_space(space)
        self.shape, self.size = self.space.shape, math.prod(self.space.shape)

    def wrap(self, env: gym.Env) -> gym.Env:
        """The environment with observations as `space` has them."""
        if self.image:
            return ChannelsFirst(env) if needs_transposing(self.raw) else env
        return env if is_vector(self.raw) else wrappers.FlattenObservation(env)

    def convert(self, values: Any, where: str) -> np.ndarray:
        """A batch of the environment's own observations, or of converted ones, as an array (n, *shape); dictionaries
        and tuples hold a batch each. UserError if they have another shape."""
        if isinstance(values, Mapping | tuple):
            return flatten(self.raw, values, where)
        values = np.asarray(values)
        if values.shape[1:] == self.shape and not (isinstance(self.raw, spaces.Discrete) and values.ndim == 1):
            return values
        if self.image and values.shape[1:] == self.raw.shape:
            return channels_first(values)
        return flatten(self.raw, values, where)

    def convert_one(self, value: Any) -> np.ndarray:
        """The same of a single observation, shape (*shape)."""
        return self.convert(_batched(value), self.name)[0]

    def is_single(self, value: Any) -> bool:
        """Whether this is one observation and no batch, raw or converted; where it could be either, it is raw."""
        first, space = value, self.raw
        while isinstance(space, spaces.Dict | spaces.Tuple) and isinstance(first, Mapping | tuple):
            key = next(iter(space.spaces)) if isinstance(space, spaces.Dict) else 0
            first, space = first[key], space.spaces[key]
        shape = np.shape(first)
        raw = space is not self.raw or shape[1:] == space.shape  # a batch of raw ones, if it is none by itself
        return shape == space.shape or (not raw and shape == self.shape)

    def features(self, values: np.ndarray) -> np.ndarray:
        """Converted observations as the discriminator takes them, shape (n, size); pixels lie in [0, 1]."""
        flat = values.reshape(len(values), -1)
        return flat.astype(np.float32) / 255 if self.image else flat

    def note(self) -> str | None:
        """A sentence on how observations are converted; None for vectors, which are not."""
        if self.image:
            return f"observations of {self.name} are images {self.shape}: convolutions see them, scaled to [0, 1]"
        if is_vector(self.raw):
            return None
        parts = ", ".join(f"{name} {size}" for name, size in parts_of(self.raw))
        small = f"; frames below {SMALLEST_FRAME} pixels are too small for convolutions" if has_frames(self.raw) else ""
        return f"observations of {self.name} are flattened into {self.size} numbers ({parts}){small}"


class Actions(Protocol):
    """Actions of an environment: those that it takes (`space`) and those of a policy (`policy_space`)."""

    space: gym.Space
    policy_space: gym.Space
    size: int  # of a feature

    def to_env(self, values: np.ndarray) -> np.ndarray:
        """The policy's actions (…, *shape) in the environment's units; those of a Box are clipped to its bounds."""

    def to_policy(self, values: np.ndarray) -> np.ndarray:
        """The environment's actions as those of a policy, shape (n, *shape)."""

    def features(self, values: np.ndarray) -> np.ndarray:
        """The environment's actions as the discriminator takes them, shape (n, size)."""

    def uniform(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Random actions of a policy, shape (count, *shape)."""

    def check_recorded(self, values: np.ndarray, where: str) -> np.ndarray:
        """Actions of a demonstration, checked; UserError for another shape or values out of bounds."""

    def note(self, log_std: float) -> str | None:
        """A sentence if actions are rescaled, or if the policy's initial std does not fit their bounds; else None."""


class Continuous:
    """A bounded, one-dimensional Box. With `rescale`, policy and discriminator use actions in [-1, 1]; by default where
    half the bounds' width lies outside `UNSCALED_HALF_WIDTHS`, or their centre is not near 0."""

    def __init__(self, space: spaces.Box, name: str, rescale: bool | None = None) -> None:
        if space.dtype.kind != "f":
            raise UserError(
                f"{name} has actions {space}, which are whole numbers: a policy over a Box would act with fractions"
            )
        if len(space.shape) != 1 or not space.is_bounded():
            raise UserError(f"{name} has actions {space}; GAIL here needs a bounded, one-dimensional Box")
        self.space, self.name, self.size = space, name, space.shape[0]
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.center, self.half_width = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
        free = high > low  # an action without a choice does not matter
        fits = (
            (self.half_width >= UNSCALED_HALF_WIDTHS[0])
            & (self.half_width < UNSCALED_HALF_WIDTHS[1])
            & (abs(self.center) <= 0.1 * self.half_width)
        )
        self.rescaled = bool((free & ~fits).any()) if rescale is None else rescale
        self.policy_space = spaces.Box(-1.0, 1.0, space.shape, space.dtype) if self.rescaled else space

    def to_env(self, values: np.ndarray) -> np.ndarray:
        clipped = np.clip(values, self.policy_space.low, self.policy_space.high)
        if not self.rescaled:
            return clipped
        moved = (self.center + self.half_width * clipped).astype(self.space.dtype)
        return np.clip(moved, self.space.low, self.space.high)  # rounding must not lead out of the bounds

    def to_policy(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.center) / self.half_width).astype(values.dtype) if self.rescaled else values

    def features(self, values: np.ndarray) -> np.ndarray:
        return self.to_policy(values).reshape(len(values), -1)

    def uniform(self, generator: np.random.Generator, count: int) -> np.ndarray:
        low, high = self.policy_space.low, self.policy_space.high
        return generator.uniform(low, high, (count, *self.space.shape)).astype(self.space.dtype)

    def check_recorded(self, values: np.ndarray, where: str) -> np.ndarray:
        require_shape(values, self.space.shape, "actions", where)
        excess = np.maximum(self.space.low - values, values - self.space.high).max(axis=1)
        worst = int(excess.argmax())
        if excess[worst] > BOUND_TOLERANCE:
            low, high = self.space.low.min(), self.space.high.max()
            raise UserError(
                f"{where} has an action out of bounds at step {worst} (by {excess[worst]:.3g}); "
                f"actions must lie within [{low:g}, {high:g}], as the environment received them"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # casting loses digits only
            return np.clip(values, self.space.low, self.space.high).astype(np.float32)

    def note(self, log_std: float) -> str | None:
        low, high, std = self.space.low.min(), self.space.high.max(), math.exp(log_std)
        if self.rescaled:
            return f"actions of {self.name} reach from {low:g} to {high:g}: rescaled to [-1, 1] for the policy"
        share = std / self.half_width[self.space.high > self.space.low]
        if not ((share < 0.02).any() or (share > 2).any()):
            return None
        return (
            f"actions of {self.name} reach from {low:g} to {high:g}, and the policy starts around 0 with a standard "
            f"deviation of {std:.2g}. Set --rescale-actions True, or change --log-std-init."
        )


class Categorical:
    """`Discrete`, `MultiDiscrete` or `MultiBinary`: the environment takes numbers, the discriminator sees one-hot codes
    (bits, of `MultiBinary`)."""

    def __init__(self, space: gym.Space, name: str) -> None:
        if not isinstance(space, spaces.Discrete) and len(space.shape) != 1:
            raise UserError(f"{name} has actions {space}; GAIL here needs one-dimensional ones")
        if isinstance(space, spaces.MultiDiscrete) and np.any(space.start):
            raise UserError(f"{name} has actions {space}; GAIL here needs a MultiDiscrete that starts at 0")
        self.space, self.name, self.size = space, name, spaces.flatdim(space)
        self.start = int(space.start) if isinstance(space, spaces.Discrete) else 0
        self.policy_space = spaces.Discrete(int(space.n)) if self.start else space
        self.counts = {spaces.Discrete: lambda: [space.n], spaces.MultiDiscrete: lambda: space.nvec}.get(
            type(space), lambda: [2] * space.shape[0]
        )()

    def to_env(self, values: np.ndarray) -> np.ndarray:
        whole = np.asarray(values).astype(np.int64) + self.start
        # Stable-Baselines3's buffers keep the number of a `Discrete` in a dimension of its own.
        return whole[..., 0] if isinstance(self.space, spaces.Discrete) and whole.ndim > 1 else whole

    def to_policy(self, values: np.ndarray) -> np.ndarray:
        return values - self.start

    def features(self, values: np.ndarray) -> np.ndarray:
        return flatten(self.space, values, "actions")

    def uniform(self, generator: np.random.Generator, count: int) -> np.ndarray:
        drawn = generator.integers(0, self.counts, (count, len(self.counts)))
        return drawn[:, 0] if isinstance(self.space, spaces.Discrete) else drawn

    def check_recorded(self, values: np.ndarray, where: str) -> np.ndarray:
        if isinstance(self.space, spaces.Discrete) and values.shape[1:] == (1,):
            values = values[:, 0]
        require_shape(values, self.space.shape, "actions", where)
        whole = np.asarray(values, dtype=np.int64)
        counted = (whole - self.start).reshape(len(whole), -1)
        wrong = (whole != values).reshape(len(whole), -1) | (counted < 0) | (counted >= np.asarray(self.counts))
        if wrong.any():
            at = int(np.flatnonzero(wrong.any(axis=1))[0])
            raise UserError(f"{where} has the action {values[at]} at step {at}; actions must lie in {self.space}")
        return whole

    def note(self, log_std: float) -> str | None:
        return None


def actions_of(space: gym.Space, name: str, rescale: bool | None = None) -> Actions:
    """The actions of a space; UserError for one that no policy here can act in."""
    if isinstance(space, spaces.Box):
        return Continuous(space, name, rescale)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return Categorical(space, name)
    raise UserError(
        f"{name} has actions {space}; GAIL here takes a bounded Box, Discrete, MultiDiscrete and MultiBinary"
    )


def _batched(value: Any) -> Any:
    """A batch of one value."""
    if isinstance(value, Mapping):
        return {key: _batched(part) for key, part in value.items()}
    return tuple(map(_batched, value)) if isinstance(value, tuple) else np.asarray(value)[None]


def can_flatten(space: gym.Space) -> bool:
    """Whether `flatten` knows a space and all its parts."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return all(map(can_flatten, space.values() if isinstance(space, spaces.Dict) else space.spaces))
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def is_vector(space: gym.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def has_frames(space: gym.Space) -> bool:
    """Whether a space holds frames of pixels, (H, W) or with channels, of any size."""
    return isinstance(space, spaces.Box) and len(space.shape) in (2, 3) and is_image_space(_frame(space))


def is_image(space: gym.Space) -> bool:
    """Whether observations are frames that are large enough for convolutions."""
    return has_frames(space) and sorted(space.shape)[-2] >= SMALLEST_FRAME


def needs_transposing(space: spaces.Box) -> bool:
    return len(space.shape) == 2 or not is_image_space_channels_first(space)


def _frame(space: spaces.Box) -> spaces.Box:
    return (
        space if len(space.shape) == 3 else spaces.Box(space.low[..., None], space.high[..., None], dtype=space.dtype)
    )


def channels_first(values: np.ndarray) -> np.ndarray:
    """Frames (n, H, W, C) or (n, H, W) as (n, C, H, W)."""
    return values[:, None] if values.ndim == 3 else np.moveaxis(values, -1, 1)


def parts_of(space: gym.Space, name: str = "") -> Iterator[tuple[str, int]]:
    """The parts of a flattened space in their order, with their sizes."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from parts_of(part, f"{name}.{key}" if name else str(key))
    else:
        yield name or type(space).__name__, spaces.flatdim(space)


def flatten(space: gym.Space, values: Any, where: str) -> np.ndarray:
    """`gymnasium.spaces.flatten` of a whole batch, shape (n, flatdim); UserError if its shapes are not the space's."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = isinstance(space, spaces.Dict)
        inner = list(space.spaces.items()) if named else list(enumerate(space.spaces))
        if not isinstance(values, Mapping if named else tuple | list):
            raise UserError(f"{where} has observations that are no {'dictionary' if named else 'tuple'} as in {space}")
        if named and (missing := [key for key, _ in inner if key not in values]):
            raise UserError(f"{where} has no observations '{missing[0]}'; it holds {', '.join(map(str, values))}")
        if len(values) != len(inner):
            raise UserError(f"{where} has observations of {len(values)} parts; {space} has {len(inner)}")
        parts = [flatten(part, values[key], f"{where}, {key},") for key, part in inner]
        if len({len(part) for part in parts}) > 1:
            raise UserError(f"{where} has parts of different length: {[len(part) for part in parts]}")
        return np.concatenate(parts, axis=1)
    if isinstance(values, Mapping | tuple):
        raise UserError(
            f"{where} has observations that are a dictionary or tuple of arrays; the environment's: {space}"
        )
    values = np.asarray(values)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        if isinstance(space, spaces.Discrete) and values.shape[1:] == (1,):
            values = values[:, 0]
        require_shape(values, space.shape, "observations", where)
        counts, starts = (space.n, space.start) if isinstance(space, spaces.Discrete) else (space.nvec, space.start)
        chosen = (values - starts).reshape(len(values), -1).astype(np.int64)
        counts = np.broadcast_to(np.asarray(counts).ravel(), chosen.shape[1:])
        if (chosen < 0).any() or (chosen >= counts).any() or (chosen != (values - starts).reshape(chosen.shape)).any():
            raise UserError(f"{where} has observations outside {space}")
        codes = [np.arange(count) == column[:, None] for count, column in zip(counts, chosen.T, strict=True)]
        return np.concatenate(codes, axis=1).astype(np.float32)
    require_shape(values, space.shape, "observations", where)
    return values.reshape(len(values), -1)


def require_shape(values: np.ndarray, right: tuple[int, ...], kind: str, where: str) -> None:
    if values.shape[1:] != right:
        one = kind == "observations" and values.ndim == 1  # which is no batch of numbers
        given = values.shape if one else values.shape[1:]
        raise UserError(f"{where} has {kind} of shape {given}; the environment's is {right}")
