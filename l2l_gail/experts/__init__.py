"""Experts: policies trained on the true reward, and their recorded episodes."""
