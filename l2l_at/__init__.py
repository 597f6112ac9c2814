"""Adversarial training in which the attacker may be learned (L2L), beside the field's hand-designed attacks."""

from l2l_at.export import load

__all__ = ["load"]
