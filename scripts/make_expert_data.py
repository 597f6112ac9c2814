"""Trains an expert with Stable-Baselines3 and records its episodes as demonstrations.

    python scripts/make_expert_data.py --env HalfCheetah-v4

Settings come from l2l_gail/experts.yml; --help lists the flags that override them.
"""

from l2l_experiment.errors import exit_on_user_error
from l2l_gail.experts import main

if __name__ == "__main__":
    exit_on_user_error(main)()
