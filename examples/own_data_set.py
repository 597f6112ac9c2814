"""Train a robust classifier on images of your own: three sets of uint8, and the mean and deviation of their pixels."""

import torch

from l2l_at.config import ATConfig
from l2l_at.data import Images, Task
from l2l_at.models import MOMENTS
from l2l_at.trainer import Trainer


def stripes(count, seed):
    """Noisy 32 × 32 images, ten kinds of stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    waves = torch.sin(torch.arange(32) * (1 + labels[:, None]) / 5)[:, None, None, :].expand(-1, 3, 32, -1)
    noise = torch.randn(count, 3, 32, 32, generator=generator)
    return Images((128 + 60 * waves + 20 * noise).clamp(0, 255).to(torch.uint8), labels, white=255)


def main(count=2000, epochs=5):
    """Train against the learned attacker."""
    MOMENTS["stripes"] = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    task = Task("stripes", 10, stripes(count, 0), stripes(200, 1), stripes(200, 2), augment=False)
    trainer = Trainer(ATConfig(method="l2l", model="preact-tiny", eps="8/255", epochs=epochs), task)
    while trainer.step_count < trainer.total:
        print(trainer.step())
    return trainer


if __name__ == "__main__":
    main()
