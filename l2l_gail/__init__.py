"""Generative adversarial imitation learning in a PPO loop, with a discriminator updated by a learned follower."""
