"""The settings of GAIL; `tuned.yml` holds the values per environment."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from l2l_experiment import settings
from l2l_experiment.checkpoint import CHECKPOINTS
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping
from l2l_experiment.run import CONFIG
from l2l_experiment.settings import Count, Layers, Natural, NotNegative, Positive, Range, Seed, Share, ShareBelowOne

RewardName = Literal["gail", "airl", "fairl", "logd", "dail", "constant"]
Vec = Literal["sync", "subproc", "envpool"]


@dataclass(frozen=True)
class GAILConfig:
    """Settings of one GAIL run: leader, reward, discriminator and follower."""

    env: str = "HalfCheetah-v4"  # Gymnasium environment
    follower: str = "adam"
    """Who updates the discriminator: adam, l2l (learned rule), l2l-rate (its log rate alone), l2l-pretrained,
    prodigy, sgd, ..."""
    seed: Seed = 0  # Seed of the networks, the environments and every draw
    device: str = "auto"  # Where networks live: cpu, cuda, or auto (the CPU: fastest with small networks)
    rescale_actions: bool | None = None  # Let the policy act in [-1, 1]; default: where the bounds are far from it

    every: Count = 1  # Keep only every N-th transition of the demonstrations, as Ho and Ermon (2016) do
    imitate: Literal["pairs", "states"] = "pairs"
    """What the discriminator compares: observation and action, or observation and next observation, without actions."""
    absorbing: bool = False  # Episodes that end early lead into a state with a learned reward: no bonus for surviving
    bc_epochs: Natural = 0  # Passes of behaviour cloning over the demonstrations before GAIL starts
    filter: Literal["demonstrations", "running"] = "demonstrations"
    """Standardise the policy's observations by the demonstrations' moments, or by those of all it has seen so far."""
    leader: Literal["ppo", "sac"] = "ppo"  # Who trains the policy; sac needs far fewer environment steps, each slower
    n_envs: Annotated[int, Range(1, 4096)] = 8  # Environments stepped side by side
    vec: Vec = "sync"  # Step them in this process, in a process each (subproc) or by EnvPool, which has MuJoCo's tasks
    n_steps: Annotated[int, Range(1, 1_000_000)] = 256  # Steps of each environment in a round
    learning_rate: Positive = 3e-4  # The policy's learning rate; PPO's falls linearly to zero
    batch_size: Annotated[int, Range(2)] = 256  # Transitions in a minibatch
    n_epochs: Count = 10  # PPO's passes over a round
    net_arch: Layers = (64, 64)  # Hidden layers of policy and value function (PPO: tanh, SAC: ReLU)
    log_std_init: Annotated[float, Range(-20, 5)] = -1.5  # Logarithm of the deviation of PPO's policy at the start
    gamma: Share = 0.99  # Discount factor
    gae_lambda: Share = 0.95  # PPO: lambda of generalised advantage estimation
    clip_range: Positive = 0.2  # PPO's clipping range
    target_kl: Positive | None = None  # Skip a round's remaining passes once the policy's KL exceeds 1.5 times this
    ent_coef: NotNegative = 0.0  # Weight of PPO's entropy bonus
    buffer_size: Count = 1_000_000  # SAC: transitions in the replay memory
    learning_starts: Natural = 1000  # SAC: random steps before the first update
    gradient_steps: Annotated[int, Range(-1)] = -1  # SAC: updates after a step of all environments; -1: one for each
    tau: Share = 0.005  # SAC: share of the critic in its target after each update
    critic_layer_norm: bool = False  # SAC: layer normalisation in the critics (Ball et al., 2023)
    compile: bool | None = None  # Compile the policy's updates, in half a minute; default: in long runs on a CPU

    reward: RewardName = "gail"
    """gail: -log(1-D); airl: D's logit h; fairl: -h*exp(h); logd: log D; dail: D*(tanh(h)+1)/2; constant: 1"""
    normalize_reward: bool = True  # PPO: divide the reward by the running deviation of its discounted return

    disc_form: Literal["logit", "airl", "airl-state"] = "logit"
    """A network gives the logit; or AIRL: g(s,a) + gamma*phi(s') - phi(s) - log pi, with g(s) alone in airl-state."""
    disc_loss: Literal["cross-entropy", "wasserstein"] = "cross-entropy"  # wasserstein: difference of mean logits
    disc_control: NotNegative = 0.0  # Weight k of (k/2)*(D-1/2)^2, the controller of C-GAIL
    disc_hidden: Layers = (128, 128)  # Hidden layers of the discriminator (tanh)
    disc_learning_rate: Positive = 1e-3  # The discriminator's learning rate; a learned follower starts from it
    disc_schedule: Literal["constant", "linear", "l2l"] = "constant"
    """An optimiser's learning rate over a run: as it is, falling to 0, or as the learned rule's was seen to change."""
    disc_hyper_rate: NotNegative = 1e-7  # Follower hypergradient: the learning rate of its learning rate
    disc_updates: Count = 10  # Discriminator steps a round
    disc_batch_size: Count = 512  # Transitions of each kind (expert, policy) in a discriminator step
    gradient_penalty: NotNegative = 1.0  # Weight of the gradient penalty on interpolates of expert and policy; 0: off
    gradient_target: NotNegative = 1.0  # Gradient norm at which the penalty is zero
    spectral_norm: bool = False  # Divide each weight matrix of the discriminator by its largest singular value
    entropy_bonus: NotNegative = 0.0  # Weight of an entropy bonus on the discriminator's output
    mixup: bool = False  # Train on random mixtures of expert and policy transitions with mixed labels
    label_smoothing: Annotated[float, Range(0, 0.5)] = 0.0  # Labels are this far from 0 and 1
    replay_rounds: Natural = 0  # Earlier rounds whose policy transitions the discriminator still sees
    replay_kind: Literal["newest", "uniform"] = "newest"  # Which rounds those are: the newest, or a sample of all

    follower_steps: Count = 5  # Discriminator steps between two fits of the learned rule (K); must divide disc_updates
    follower_hidden: Natural = 16  # Width of the learned rule's network, which all weights share
    follower_anchored: bool | None = None  # Show the rule weights from their start, not from 0; default: if no penalty
    follower_learning_rate: NotNegative = 1e-3  # Learning rate of the learned rule's network
    log_rate_learning_rate: NotNegative = 0.5  # Learning rate of the learned rule's log rate
    log_rate_limit: Annotated[float, Range(1)] | None = None
    """Largest factor on --disc-learning-rate, up or down; default: none, or 100 without --gradient-penalty."""
    holdout: ShareBelowOne = 0.25  # Share of every demonstration and rollout that only scores the learned rule
    score_smoothing: Annotated[float, Range(0, 0.5)] | None = None  # Label smoothing in the score; default: as in steps
    score_penalty: NotNegative | None = None
    """Gradient penalty in the rule's score; default: that of its steps; without one 1, or 0 with smoothed labels."""
    freeze_follower: bool = False  # Keep the learned rule as it is

    def __post_init__(self) -> None:
        settings.check(self)
        if not (self.disc_hidden and self.net_arch):
            raise UserError("--disc-hidden and --net-arch need at least one layer each")
        if self.n_envs * self.n_steps < 2:
            raise UserError("PPO standardises advantages: a round needs at least 2 transitions")
        if self.absorbing and self.gamma == 1:
            raise UserError("--absorbing sums a reward for ever, which needs a --gamma below 1")
        if self.imitate == "states" and self.disc_form != "logit":
            raise UserError(f"--disc-form {self.disc_form} needs actions, and --imitate states has none")
        if self.compile and self.target_kl is not None:
            raise UserError("--target-kl needs PPO's update as Stable-Baselines3 has it: leave out --compile")
        if self.spectral_norm and self.disc_form != "logit":
            raise UserError(f"--disc-form {self.disc_form} has no --spectral-norm")


def tuned(env: str, leader: str = "ppo") -> GAILConfig:
    """The settings of `tuned.yml` for an environment: its block over the block `default`; for another leader than PPO
    the blocks `LEADER` and `ENV LEADER`."""
    file = resources.files("l2l_gail").joinpath("tuned.yml")
    if leader == "ppo":
        return settings.load_block(GAILConfig, file, env, env=env)
    return settings.load_block(GAILConfig, file, leader, f"{env} {leader}", env=env, leader=leader)


# Defaults of earlier versions. Their runs hold these values also where nothing reads them, and can still be loaded.
EARLIER = {"disc_learning_rate": 3e-4, "log_rate_learning_rate": 0.05}


def defaults(config: GAILConfig) -> tuple[GAILConfig, ...]:
    """The default settings: general, tuned for the task and leader of `config`, and of earlier versions."""
    return GAILConfig(), tuned(config.env, config.leader), GAILConfig(**EARLIER)


def stored(folder: Path | str) -> GAILConfig:
    """The settings in the folder of a run, or of a `GAIL` that was saved."""
    path = Path(folder) / CONFIG
    if Path(folder).parent.name == CHECKPOINTS and not path.exists():
        raise UserError(f"{folder} is one checkpoint; name the folder above: {Path(folder).parent.parent}")
    content = read_mapping(path).get("settings")
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold the settings of a GAIL run")
    return settings.read(GAILConfig, content, str(path))
