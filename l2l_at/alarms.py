"""The alarm for catastrophic overfitting."""

from dataclasses import dataclass


@dataclass
class CollapseAlarm:
    """Tells when a model withstands the one-step attack but not the many-step one: catastrophic overfitting. Raised
    where the accuracy on training images under ten steps lies more than `gap` below that under one step, and is either
    less than half of it or has dropped by more than `drop` from its best (the drop after which Wong et al., 2020,
    stop). A drop that both accuracies share is none: it is how unsteady early epochs look, under PGD-10 too. Once
    raised, it stays until the accuracy under ten steps is back within `drop` of its best: a model that has collapsed
    and then withstands one step no longer, either, is no better for it."""

    best: float = 0.0
    raised: bool = False
    drop: float = 0.2
    gap: float = 0.2

    def __call__(self, figures: dict[str, float]) -> bool:
        """Whether the figures of `probe.follower_figures`, after those of all earlier calls, show a collapse."""
        one, ten = figures["robust/train_fgsm"], figures["robust/train_pgd10"]
        self.best = max(self.best, ten)
        lost = self.best - ten > self.drop
        illusion = one - ten > self.gap and (ten < one / 2 or lost)
        self.raised = illusion or (self.raised and lost)
        return self.raised


def alarm_message(epoch: float, figures: dict[str, float]) -> str:
    """What is said when the alarm is first raised."""
    one, ten = figures["robust/train_fgsm"], figures["robust/train_pgd10"]
    return (
        f"ALARM: catastrophic overfitting at epoch {epoch:.0f}: on training images the classifier withstands one step "
        f"({one:.0%}) but not ten ({ten:.0%}). Its robustness is an illusion; try more steps, a smaller radius or "
        "another method."
    )
