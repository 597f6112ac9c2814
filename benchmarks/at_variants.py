"""Forms of the methods that stand beside them in tables of cost and robustness: settings by name."""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "frozen": {"method": "l2l", "freeze_attacker": True},
    "l2l-trades-frozen": {"method": "l2l-trades", "freeze_attacker": True},
    "pgd-unaveraged": {"method": "pgd", "average": "none"},
    "pgd-swa": {"method": "pgd", "average": "swa"},
    "pgd-awp": {"method": "pgd", "awp": 0.01},
    "trades-awp": {"method": "trades", "awp": 0.005},
    "arow-awp": {"method": "arow", "awp": 0.005},
    "arow-swa": {"method": "arow", "average": "swa"},
    "fast-bat-consistent": {"method": "fast-bat", "bat_lambda": 0.0},
}


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as flags of scripts/train_at.py."""
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in settings.items()]
    return [word for name, value in pairs for word in ([name] if value is True else [name, str(value)])]
