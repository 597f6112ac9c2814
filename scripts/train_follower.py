"""Train L2L's rule before it is used: python scripts/train_follower.py --out follower"""

from l2l_gail.pretraining.cli import main

if __name__ == "__main__":
    main()
