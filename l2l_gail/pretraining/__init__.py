"""Learning to learn: a follower's rule that is trained before it is used."""

from l2l_gail.pretraining.lives import Life, record

__all__ = ["Life", "record"]
