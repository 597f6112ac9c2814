"""Adversarial training in which the attacker may be learned (L2L), beside the field's hand-designed attacks.

from l2l_at import Threat, datasets, grade, train

classifier = train(None, "digits", method="l2l", epochs=20)
images, labels = datasets.load("digits").test.take(slice(None))
print(grade(classifier, images, labels, Threat("linf", 0.1))["robust"])
"""

from l2l_at import datasets
from l2l_at.attacks import PGD
from l2l_at.config import ATConfig, tuned
from l2l_at.datasets import DATASETS, DataSet, Images, Task
from l2l_at.export import load, save
from l2l_at.grading import grade
from l2l_at.threat import Threat
from l2l_at.trainer import Trainer, train

__all__ = ["DATASETS", "PGD", "ATConfig", "DataSet", "Images", "Task", "Threat", "Trainer"]
__all__ += ["datasets", "grade", "load", "save", "train", "tuned"]
