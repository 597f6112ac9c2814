"""Play or record the policy of a run: python scripts/play.py runs/NAME [--video out.mp4]"""

from l2l_gail.play import main

if __name__ == "__main__":
    main()
