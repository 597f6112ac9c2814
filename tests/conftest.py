"""For all tests: one thread each, since as many processes run them as there are cores."""

import os

import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start
torch.set_num_threads(1)
