"""Learning to learn: a follower's rule that is trained before it is used."""

from l2l_gail.pretraining.inner import InnerRun, record

__all__ = ["InnerRun", "record"]
