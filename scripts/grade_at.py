"""Attack a trained classifier with code that is not ours: python scripts/grade_at.py runs/NAME --tier standard"""

from l2l_at.cli import grade_main

if __name__ == "__main__":
    grade_main()
