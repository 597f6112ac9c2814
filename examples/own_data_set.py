"""Train on images of your own and grade the result.

python examples/own_data_set.py --dataset stripes --epochs 1 --run-dir runs/stripes
python examples/own_data_set.py grade runs/stripes"""

import sys

import torch

from l2l_at import DATASETS, DataSet, Images
from l2l_at.cli import grade_main, main, parse  # noqa: F401  a sweep of this file needs `parse` and `main`


def stripes(count, seed):
    """Noisy 16 × 16 images, ten kinds of stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    waves = torch.sin(torch.arange(16) * (1 + labels[:, None]) / 4)[:, None, None, :].expand(-1, 3, 16, -1)
    noise = torch.randn(count, 3, 16, 16, generator=generator)
    return Images((128 + 60 * waves + 20 * noise).clamp(0, 255).to(torch.uint8), labels)


DATASETS["stripes"] = DataSet("stripes", 10, lambda: (stripes(1000, 0), stripes(200, 1)), "stripes, drawn on the fly")

if __name__ == "__main__":
    words = sys.argv[1:]
    grade_main(words[1:]) if words[:1] == ["grade"] else main(words)
