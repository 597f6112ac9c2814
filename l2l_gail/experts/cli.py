"""The command line of `scripts/make_expert_data.py`: train a policy on the true reward, record it, write its card."""

import shlex
import sys
from pathlib import Path

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from tqdm import tqdm

from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_gail.demonstrations import Demonstrations, save_minari, shipped_dataset_id
from l2l_gail.environments import Environment
from l2l_gail.experts import card as cards
from l2l_gail.experts.recording import Played, play
from l2l_gail.experts.settings import ExpertSettings, parse, relevant
from l2l_gail.experts.training import greedy, train


@exit_on_user_error
def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, trains (or resumes), records, writes data set, card and README.md."""
    arguments = sys.argv[1:] if arguments is None else arguments
    settings = parse(arguments)
    environment = Environment(settings.env)
    torch.set_num_threads(1)  # networks this small lose time to thread hand-over
    folder = settings.out / shipped_dataset_id(settings.env)
    if folder.exists() and not settings.overwrite:  # said before training, not after
        raise UserError(f"{folder} is there already; name another folder with --out or replace it with --overwrite")
    if settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"--out {settings.out} is a file; name a folder")
    cards.check_readme(settings.out)
    model, normalizer = train(settings)
    played = record(settings, environment, model, normalizer)
    # The card says how to make the data from nothing, so that recording again does not change it.
    flags = [flag for flag in arguments if flag not in ("--resume", "--overwrite")]
    command = shlex.join(["python", "scripts/make_expert_data.py", *flags])
    write(settings, played, trained_steps=model.num_timesteps, command=command)


def record(
    settings: ExpertSettings, environment: Environment, model: OnPolicyAlgorithm, normalizer: VecNormalize
) -> Played:
    """Deterministic episodes of the policy, in environments with seeds that training has not used."""
    with tqdm(total=settings.episodes, desc="record", unit="episode") as bar:

        def show(total: float, kept: bool) -> None:
            bar.update(int(kept))
            bar.set_postfix_str(f"return {total:.0f}{'' if kept else ' (dropped)'}")

        return play(
            environment.make(),
            greedy(model, normalizer),
            episodes=settings.episodes,
            first_seed=1_000_000 * (settings.seed + 1),
            min_return=settings.min_return,
            on_episode=show,
        )


def write(settings: ExpertSettings, played: Played, *, trained_steps: int, command: str) -> Path:
    """Writes the data set with its card, and README.md from all cards; returns the data set's folder."""
    dataset_id = shipped_dataset_id(settings.env)
    demonstrations = Demonstrations(settings.env, played.episodes, dataset_id)
    card = cards.card(
        dataset_id=dataset_id,
        demonstrations=demonstrations,
        played=played,
        settings=relevant(settings),
        trained_steps=trained_steps,
        command=command,
        selection=_selection(settings),
        min_return=settings.min_return,
    )
    folder = save_minari(
        settings.out,
        dataset_id,
        demonstrations,
        seeds=played.seeds,
        algorithm=f"{settings.algo.upper()} of {'Stable-Baselines3' if settings.algo == 'ppo' else 'sb3-contrib'}",
        description=f"Deterministic episodes of an expert in {settings.env}; how it was made is in card.json.",
        requirements=[f"mujoco=={card['versions']['mujoco']}"],
        overwrite=settings.overwrite,
    )
    cards.write(folder, card)
    cards.write_readme(settings.out)
    print(f"{folder}: {len(demonstrations)} episodes, return {card['return_mean']:.0f} ± {card['return_sd']:.0f}")
    return folder


def _selection(settings: ExpertSettings) -> str:
    """How the recorded policy was chosen, for the card."""
    if not settings.select_episodes:
        return "the policy at the end of training."
    return (
        f"of the policies after every {settings.checkpoint_every:,} of {settings.steps:,} steps, the one with the "
        f"highest mean return over {settings.select_episodes} deterministic episodes (not those recorded)."
    )
