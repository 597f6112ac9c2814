"""Compare runs, ours or anybody's TensorBoard folders: python scripts/compare.py runs/* --by follower"""

from l2l_compare.cli import main

if __name__ == "__main__":
    main()
