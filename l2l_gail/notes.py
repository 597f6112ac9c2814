"""Notes on a task and its settings, printed before training starts."""

from l2l_gail.config import GAILConfig
from l2l_gail.environments import STEP_LIMIT, Environment
from l2l_gail.rewards import BIAS


def notes(config: GAILConfig, env: Environment) -> list[str]:
    """Sentences for the user, none where nothing is unusual."""
    said = []
    if config.reward in BIAS and config.reward != "constant" and env.ends_early:
        said.append(
            f"episodes of {env.name} may end early and the reward '{config.reward}' {BIAS[config.reward]}. "
            "Compare with --reward constant, which shows what that alone achieves."
        )
    if env.unlimited:
        said.append(
            f"{env.name} was registered without a time limit: an episode that does not end by itself is cut off "
            f"after {STEP_LIMIT:,} steps. Register it with max_episode_steps to set another limit."
        )
    if advice := env.actions.advice(env.name, config.log_std_init):
        said.append(advice)
    return said
