"""Notes on unusual tasks and settings, printed before training."""

from l2l_gail.config import GAILConfig
from l2l_gail.environments import STEP_LIMIT, Environment
from l2l_gail.rewards import BIAS


def notes(config: GAILConfig, env: Environment, *, fixed: bool = False) -> list[str]:
    """Sentences for the user, none where nothing is unusual. With a `fixed` reward, none on how it is learned."""
    log_std = config.log_std_init if config.leader == "ppo" else 0.0
    said = [] if fixed else _of_reward(config, env)
    if env.unlimited:
        said.append(
            f"{env.name} was registered without a time limit: an episode that does not end by itself is cut off "
            f"after {STEP_LIMIT:,} steps. Register it with max_episode_steps to set another limit."
        )
    return said + [told for told in (env.observations.note(), env.actions.note(log_std)) if told is not None]


def _of_reward(config: GAILConfig, env: Environment) -> list[str]:
    said = []
    if config.reward in BIAS and config.reward != "constant" and env.ends_early and not config.absorbing:
        said.append(
            f"episodes of {env.name} may end early and the reward '{config.reward}' {BIAS[config.reward]}. "
            "Add --absorbing to remove this bias, or run --reward constant to see what the bias alone achieves."
        )
    if config.leader == "sac" and config.reward == "gail":
        said.append(
            "the reward 'gail' hardly differs between transitions that the discriminator is sure of, and with a replay "
            "memory it soon is. Use --reward airl."
        )
    if config.disc_form != "logit" and config.reward != "airl":
        said.append(f"AIRL's reward is the logit; this run's is '{config.reward}'. For AIRL say --reward airl.")
    if config.follower == "l2l-pretrained" and not config.gradient_penalty:
        said.append("the rule that ships was trained with a gradient penalty and has not been tried without one.")
    return said
