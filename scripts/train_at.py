"""Train a classifier against a learned or a hand-designed attacker: python scripts/train_at.py --dataset digits"""

from l2l_at.cli import main

if __name__ == "__main__":
    main()
