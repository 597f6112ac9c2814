"""Train an expert and record its episodes: python scripts/make_expert_data.py --env HalfCheetah-v4"""

from l2l_gail.experts.cli import main

if __name__ == "__main__":
    main()
