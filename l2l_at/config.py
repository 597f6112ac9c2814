"""The settings of adversarial training, one flat frozen dataclass; data sets change some of its defaults."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from l2l_at import datasets
from l2l_at.attackers import AttackerName, Input, Scale
from l2l_at.threat import Norm, Threat, parse_radius, tidy_radius
from l2l_experiment import settings
from l2l_experiment.errors import UserError
from l2l_experiment.settings import Count, NotNegative, Positive, Range, Seed, ShareBelowOne


@dataclass(frozen=True)
class ATConfig:
    """Settings of one run: data, threat model, classifier, method, attacker and schedule."""

    dataset: str = "digits"  # digits (comes with scikit-learn), cifar10, cifar100 (fetched, or from --data-dir)
    method: str = "l2l"  # Training method; --list prints them all
    model: str = "small-cnn"
    """Classifier: small-cnn (digits); preact-tiny, resnet18, preactresnet18, wrn-28-10, wrn-34-10 (CIFAR)."""
    norm: Norm = "linf"  # Norm of the threat model
    eps: str = "0.1"
    """Radius of the threat model on the scale of pixels in [0, 1]: a number, a fraction such as 8/255, or either with
    sd behind it, in units of the data set's standard deviation (mean over channels)."""
    seed: Seed = 0  # Seed of the split, the networks and every draw
    device: str = "auto"  # Where everything lives: auto, cpu or cuda

    holdout: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.1  # Share of images that choose the best
    subset: Count | None = None  # Train on so many images only, stratified
    epochs: Count = 40  # Passes over the training images (with replays: an epoch has as many steps, on fewer images)
    batch_size: Count = 128  # Images in a step
    schedule: Literal["one-cycle", "multi-step"] = "one-cycle"  # Rate: up and down once, or a tenth at 1/2 and 3/4
    learning_rate: Positive = 0.1  # The classifier's learning rate (the highest of the schedule)
    momentum: ShareBelowOne = 0.9  # Momentum of SGD; it stays as it is in the one-cycle schedule
    weight_decay: NotNegative = 5e-4  # Weight decay of SGD
    clip_norm: NotNegative = 0.0  # Clip the classifier's gradient to this norm; 0: no clipping
    average: Literal["ema", "swa", "none"] = "ema"  # Evaluated weights: exponential or (at the end) equal mean
    ema: ShareBelowOne = 0.999  # Decay of the exponential average, warmed up from 0.1
    swa_from: ShareBelowOne = 0.42  # Share of the run before the equal average (published ARoW: 50 epochs of 120)
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 autocast on CUDA, else fp32; grading is fp32
    compile: bool = False  # Compile the classifier with torch.compile

    attack_steps: Count | None = None  # Steps of the training attack; by default the method's own
    attack_step_size: Positive | None = None  # Size of such a step over the radius; by default the method's own
    attack_start: Literal["zero", "random", "last"] | None = None
    """Where the training attack starts: at the image (for --inner kl: hardly beside it), at random, or where the last
    attack on the same image ended; by default as the method has it."""

    inner: Literal["ce", "kl"] | None = None  # The attack raises cross-entropy or divergence from the clean prediction
    regularisation: NotNegative | None = None
    """Weight of the regulariser: beta of trades (6) and mart (5); lambda of arow and cow (7, twice the paper's) and of
    grad-align (by radius)."""
    label_smoothing: ShareBelowOne | None = None  # Label smoothing; by default the method's own
    clean_share: ShareBelowOne = 0.0  # Share of the clean images' loss in methods that train on perturbed images only
    replays: Count | None = None  # How often free sees each batch in a row (8)
    noise: Positive | None = None  # Reach of n-fgsm's noise over the radius (2)
    bat_step_size: Positive | None = None  # fast-bat's eta on summed losses; 5000/255 up to radius 8/255, else 2000/255
    bat_lambda: NotNegative = 10.0  # fast-bat's lambda in the implicit gradient; 0 stands for 1/eta: the step's own
    awp: NotNegative = 0.0  # Relative size of adversarial weight perturbation, on any method (published: 0.005 to 0.01)
    awp_from: ShareBelowOne = 0.1  # Share of the run after which the weights are perturbed

    attacker: AttackerName = "tiny"  # Network of the published L2L methods (l2l-naive, -grad, -2step, -kstep)
    attacker_width: Count = 32  # Channels of the tiny network, which the residual attacker (l2l) always has
    attacker_sees: tuple[Input, ...] = ("image", "gradient", "delta")
    """What the residual attacker's network sees, of image, gradient and delta; nothing: there is no network."""
    attacker_learning_rate: Positive = 1e-3  # Learning rate of the attacker's Adam
    attacker_decay: NotNegative = 2e-4  # Weight decay of the attacker, added to the gradient
    attacker_scale_learning_rate: NotNegative | None = None
    """Learning rate of the logarithms of the residual attacker's step size and sharpness (0.03); 0 keeps both."""
    attacker_every: Count | None = None  # Fit the residual attacker on every n-th batch (l2l: 4, l2l-sdi: 20)
    gradient_scale: Scale | None = None  # Scale the attacker's gradient per sample or batch; by default the method's
    freeze_attacker: bool = False  # Leave the attacker as it starts

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", tidy_radius(self.eps))
        settings.check(self)
        datasets.find(self.dataset)
        _ = self.threat

    @property
    def threat(self) -> Threat:
        deviation = datasets.find(self.dataset).deviation if self.eps.endswith("sd") else None
        return Threat(self.norm, parse_radius(self.eps, deviation))


def tuned(dataset: str, **changes: Any) -> ATConfig:
    """The default settings for a data set, with changes. UserError for another norm than linf without its eps."""
    if changes.get("norm", "linf") != "linf" and "eps" not in changes:
        raise UserError(f"norm {changes['norm']} needs eps: the default radius is one of linf")
    data = datasets.find(dataset)
    values = {"dataset": dataset, "model": data.model, **data.settings, **changes}
    return settings.read(ATConfig, values, f"the settings of {dataset}")
