"""The command line of `scripts/make_expert_data.py`: train a policy on the true reward, record it, write its card."""

import json
import shlex
import sys

from gymnasium.spaces import Box

from l2l_experiment import process
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_gail.demonstrations import Demonstrations, save_minari, shipped_dataset_id
from l2l_gail.environments import Environment
from l2l_gail.experts.card import card, check_readme, write_readme
from l2l_gail.experts.recording import RecordedEpisodes, play
from l2l_gail.experts.settings import ExpertSettings, parse
from l2l_gail.experts.training import algorithm, off_policy, train


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Parses the command line, trains (or resumes), records, writes data set, card and README.md."""
    argv = sys.argv[1:] if argv is None else argv
    settings = parse(argv)
    environment = Environment(settings.env)
    if getattr(environment.actions, "start", 0):
        raise UserError(
            f"actions of {settings.env} start at {environment.actions.start}; wrap it so that they start at 0"
        )
    if off_policy(settings) and not isinstance(environment.actions.space, Box):
        raise UserError(f"--algo {settings.algo} needs continuous actions, not {environment.actions.space}; use ppo")
    process.configure()
    folder = settings.out / shipped_dataset_id(settings.env)
    if folder.exists() and not settings.overwrite:  # said before training, not after
        raise UserError(f"{folder} is there already; name another folder with --out or replace it with --overwrite")
    if settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"--out {settings.out} is a file; name a folder")
    check_readme(settings.out)
    model, normalizer = train(settings)
    played = play(
        environment.make(),
        lambda observation: model.predict(normalizer.normalize_obs(observation), deterministic=True)[0],
        episodes=settings.episodes,
        first_seed=1_000_000 * (settings.seed + 1),  # not used in training
        min_return=settings.min_return,
    )
    # The card says how to make the data from nothing, so that recording again does not change it.
    flags = [flag for flag in argv if flag not in ("--resume", "--overwrite")]
    command = shlex.join(["python", "scripts/make_expert_data.py", *flags])
    write(settings, played, trained_steps=model.num_timesteps, command=command)


def write(settings: ExpertSettings, played: RecordedEpisodes, *, trained_steps: int, command: str) -> None:
    """Writes the data set with its card, and README.md from all cards."""
    dataset_id = shipped_dataset_id(settings.env)
    demonstrations = Demonstrations(settings.env, played.episodes, dataset_id)
    content = card(settings, demonstrations, played, trained_steps=trained_steps, command=command)
    folder = save_minari(
        settings.out,
        dataset_id,
        demonstrations,
        seeds=played.seeds,
        algorithm=f"{settings.algo.upper()} of {algorithm(settings.algo).__module__.split('.')[0]}",
        description=f"Deterministic episodes of an expert in {settings.env}; how it was made is in card.json.",
        requirements=[f"mujoco=={content['versions']['mujoco']}"],
        overwrite=settings.overwrite,
    )
    (folder / "card.json").write_text(json.dumps(content, indent=1) + "\n")
    write_readme(settings.out)
    mean, deviation = content["return_mean"], content["return_sd"]
    print(f"{folder}: {len(demonstrations)} episodes, return {mean:.0f} ± {deviation:.0f}")
