"""Draw why a run went as it did: python scripts/diagnose.py runs/NAME"""

from l2l_compare.diagnose import main

if __name__ == "__main__":
    main()
