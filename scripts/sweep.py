"""Train many runs: python scripts/sweep.py gail --follower adam l2l --seed 0:5 --out runs/mine"""

from l2l_experiment.sweep_cli import main

if __name__ == "__main__":
    main()
