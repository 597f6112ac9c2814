"""Train GAIL, with Adam or with a learned follower: python scripts/train_gail.py --env HalfCheetah-v4 --l2l"""

from l2l_gail.cli import main

if __name__ == "__main__":
    main()
