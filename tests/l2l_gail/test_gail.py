"""GAIL: who sees which transitions, what is logged, and that a run continues bit for bit from its checkpoint."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from l2l_experiment.errors import UserError
from l2l_gail import GAIL, GAILConfig
from l2l_gail.filters import MixtureFilter
from l2l_gail.followers import commit
from l2l_gail.rewards import reward
from l2l_gail.transitions import transitions_of
from tests.l2l_gail.conftest import SMALL, make_demonstrations

HALF = "HalfCheetah-v4"


def weights(gail):
    tensors = [*gail.leader.algorithm.policy.state_dict().values(), *gail.discriminator.state_dict().values()]
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def made_up(seed):
    return transitions_of(make_demonstrations(17, 6, episodes=1, length=64, seed=seed))


class Witness(nn.Module):
    """A discriminator that keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.slope, self.shown = nn.Parameter(torch.ones(())), []

    def forward(self, x):
        self.shown.append(x.detach())
        return self.slope * x.sum(1)


class Asking:
    """A follower that only asks, and wants a quarter held out."""

    holdout, skipped = 0.25, 0

    def __init__(self, discriminator, config):
        self.discriminator, self.drawn = discriminator, {}

    def answer(self, objectives, progress):
        self.progress = progress
        for name in objectives._fields:
            self.discriminator.shown.clear()
            getattr(objectives, name)()(dict(self.discriminator.named_parameters()))
            (both,) = self.discriminator.shown
            self.drawn[name] = both.chunk(2)  # of the expert, of the policy
        return {}


def rows(*parts):
    """Rows as a set, by their actions, which no filter changes."""
    return {tuple(np.float32(row[-6:])) for part in parts for row in np.asarray(part)}


@pytest.mark.parametrize("replay", [0, 1])
def test_everybody_sees_his_own_side_of_the_split(config, cheetah, replay):
    config = replace(config, gradient_penalty=0.0, disc_batch_size=3000, replay_rounds=replay)
    gail = GAIL(HALF, cheetah, config=config, discriminator=Witness(), follower=Asking)
    rollouts = [made_up(1), made_up(2), made_up(3)]
    for rollout in rollouts:
        gail.answer(rollout, 0.5)
    drawn, seen = gail.follower.drawn, [rollout.actions for rollout in rollouts[2 - replay :]]
    assert rows(drawn["train"][0]) == rows(*(episode.actions[:30] for episode in cheetah.episodes))
    assert rows(drawn["score"][0]) == rows(*(episode.actions[30:] for episode in cheetah.episodes))
    assert rows(drawn["train"][1]) == rows(*seen) - rows(seen[-1][-16:])
    assert rows(drawn["score"][1]) == rows(seen[-1][-16:])
    assert gail.follower.progress == 0.5


def test_the_discriminator_is_measured_before_it_moves_also_on_demonstrations_that_nobody_trains_on(config, cheetah):
    class Flip(Asking):
        def answer(self, objectives, progress):
            commit({"slope": torch.tensor(-1.0)}, self.discriminator)
            return {}

    monitor = make_demonstrations(17, 6, seed=9)
    gail = GAIL(HALF, cheetah, config=config, discriminator=Witness(), follower=Flip, monitor=monitor)
    gail.answer(made_up(1), 0.5)
    parts = gail.train_expert, transitions_of(monitor), made_up(1)
    expert, other, policy = (gail.inputs(part).sum(1) for part in parts)
    right = {
        "train_disc/acc_expert": expert > 0,
        "train_disc/heldout_acc": other > 0,
        "train_disc/acc_gen": policy <= 0,
    }
    for name, values in right.items():
        assert gail.figures[name] == pytest.approx(float(values.float().mean()))
    paid = gail.reward(made_up(1))  # by the discriminator as it is now
    np.testing.assert_allclose(paid, reward(-policy, "gail").numpy(), rtol=1e-4, atol=1e-6)
    assert gail.figures["train_disc/logit_std"] == pytest.approx(float(policy.std()), rel=1e-4)
    assert gail.figures["train_reward/std"] == pytest.approx(float(paid.std()), rel=1e-4)


def test_the_discriminator_sees_filtered_observations_and_plain_actions(config, cheetah):
    gail = GAIL(HALF, cheetah, config=config)
    expected = MixtureFilter().fit(transitions_of(cheetah).float32().observations)
    for rollout in (made_up(1), made_up(2)):
        expected.update(rollout.observations)
        gail.answer(rollout, 0.5)
    seen = gail.inputs(rollout).numpy()
    np.testing.assert_allclose(seen[:, :17], expected(rollout.observations), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen[:, 17:], rollout.actions, rtol=1e-6)
    assert not np.allclose(seen[:, :17], rollout.observations, atol=0.01)


def test_the_policys_filter_has_the_demonstrations_moments_or_runs(config):
    long = make_demonstrations(17, 6, episodes=4, length=1000)
    for episode in long.episodes:  # numbers that single precision does not hold: their deviation is not its rounding
        episode.observations[:, :3] *= 3
        episode.observations[:, 3], episode.observations[:, 4] = 0.45, 1.3
        episode.observations[:] = episode.observations.astype(np.float32)
    gail = GAIL(HALF, long, config=config).learn(64)
    filtered = gail.envs.normalize_obs(np.concatenate([episode.observations[:-1] for episode in long.episodes]))
    np.testing.assert_allclose(filtered.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.delete(filtered.std(axis=0), [3, 4]), 1, atol=2e-3)
    # What demonstrations never vary keeps its scale.
    assert gail.envs.normalize_obs(np.full((1, 17), 1.4))[0, 3:5] == pytest.approx([0.95, 0.1], rel=1e-3)
    running = GAIL(HALF, long, config=replace(config, filter="running")).learn(64)
    assert running.envs.obs_rms.count == pytest.approx(66, abs=0.1)  # two resets, and a round


OTHER = {"follower": "l2l-rate", "filter": "running", "reward": "airl", "target_kl": 1e-9, "normalize_reward": False}
OTHER |= {"spectral_norm": True, "mixup": True, "follower_anchored": True, "log_rate_limit": 1.0, "score_penalty": 3.0}
OTHER |= {"freeze_follower": True, "score_smoothing": 0.2, "net_arch": (9,), "disc_hidden": (7,), "holdout": 0.0}
OTHER |= {"bc_epochs": 1, "replay_rounds": 2, "batch_size": 16, "label_smoothing": 0.1, "gae_lambda": 0.5, "seed": 1}
OTHER |= {"entropy_bonus": 0.1, "ent_coef": 0.1, "gamma": 0.9, "clip_range": 1e-6, "log_std_init": -1.0, "n_envs": 1}


OTHER |= {"replay_kind": "uniform"}
OTHER |= {"leader": "sac", "rescale_actions": True, "imitate": "states", "absorbing": True, "disc_form": "airl"}
OTHER |= {"disc_loss": "wasserstein", "disc_control": 1.0, "buffer_size": 40, "learning_starts": 0, "gradient_steps": 1}
OTHER |= {"critic_layer_norm": True}
OF_SAC = ("buffer_size", "learning_starts", "gradient_steps", "tau", "critic_layer_norm")
ENV = "InvertedPendulum-v5"  # its actions reach from -3 to 3, and its episodes end early


def small(leader):
    if leader == "ppo":
        return GAILConfig(follower="l2l", rescale_actions=False, replay_rounds=1, **SMALL)
    kept = {name: value for name, value in SMALL.items() if name != "n_epochs"}
    return GAILConfig(follower="l2l", leader="sac", **kept, learning_starts=50, buffer_size=1000)


@pytest.fixture(scope="module")
def usual():
    def trained(config):
        demonstrations = make_demonstrations(4, 1)
        return config, weights(GAIL(ENV, demonstrations, config=config).learn(192))

    return {leader: trained(small(leader)) for leader in ("ppo", "sac")}


ELSEWHERE = {"env", "device", "compile", "vec", "disc_schedule", "disc_hyper_rate"}  # what they do is tested there


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({field.name for field in fields(GAILConfig)} - ELSEWHERE))
def test_every_setting_changes_the_run(usual, name):
    config, before = usual["sac" if name in OF_SAC else "ppo"]
    if name == "leader":
        assert not torch.equal(usual["sac"][1][:100], before[:100])
        return
    other = replace(config, **{name: OTHER[name] if name in OTHER else 2 * getattr(config, name)})
    after = weights(GAIL(ENV, make_demonstrations(4, 1), config=other).learn(192))
    assert before.shape != after.shape or not torch.equal(before, after)


@pytest.mark.parametrize("own", [{}, {"follower": "l2l", "follower_anchored": True}, {"follower": "l2l-pretrained"}])
@pytest.mark.parametrize(("env", "shape"), [(HALF, (17, 6)), ("Hopper-v4", (11, 3))])
def test_resumed_run_equals_the_uninterrupted_one(config, tmp_path, own, env, shape):
    demonstrations = make_demonstrations(*shape)
    own = own | {"replay_rounds": 1, "replay_kind": "uniform", "spectral_norm": True}
    whole = GAIL(env, demonstrations, config=replace(config, **own))
    whole.learn(320, on_round=lambda gail: gail.save(tmp_path) if gail.num_timesteps == 128 else None)
    torch.manual_seed(999)
    np.random.seed(999)  # noqa: NPY002  the global generator is what PPO shuffles with
    resumed = GAIL.load(tmp_path, demonstrations)
    assert resumed.num_timesteps == 128
    resumed.learn(192, reset_num_timesteps=False)
    assert resumed.num_timesteps == whole.num_timesteps == 320
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.figures == whole.figures
    np.testing.assert_array_equal(whole.envs.obs_rms.mean, resumed.envs.obs_rms.mean)


def test_cloning_comes_first_once_and_sees_what_the_policy_will_see(config, cheetah, tmp_path):
    gail = GAIL(HALF, cheetah, config=replace(config, net_arch=(64, 64), bc_epochs=300, learning_rate=1e-12))
    gail.learn(64).save(tmp_path)
    expert = transitions_of(cheetah)
    error = np.square(gail.predict(expert.observations, deterministic=True)[0] - expert.actions).mean()
    assert error < 2 * gail.bc_loss + 0.02 < 0.2  # 0.33 is the variance of these actions
    loaded = GAIL.load(tmp_path, cheetah)
    assert loaded.bc_loss == gail.bc_loss
    before = weights(loaded)
    assert torch.equal(before, weights(loaded.learn(0)))


def test_what_is_loaded_predicts_the_same_and_fits_the_run(config, cheetah, tmp_path):
    gail = GAIL(HALF, cheetah, config=config).learn(64)
    gail.save(tmp_path)
    loaded, seen = GAIL.load(tmp_path), np.random.default_rng(0).normal(size=(4, 17))
    actions, state = gail.predict(seen, deterministic=True)
    assert state is None
    np.testing.assert_array_equal(actions, loaded.predict(seen, deterministic=True)[0])
    assert not np.array_equal(actions, gail.predict(seen)[0])  # as in Stable-Baselines3
    np.testing.assert_allclose(actions[0], gail.predict(seen[0], deterministic=True)[0], rtol=1e-5)
    with pytest.raises(UserError, match="demonstrations"):
        loaded.learn(128)
    with pytest.raises(UserError, match="demonstrations are not those"):
        GAIL.load(tmp_path, make_demonstrations(17, 6, seed=1))
    for change in ({"seed": 1}, {"learning_rate": 1e-3}, {"reward": "airl"}, {"disc_hidden": (8,)}):
        other, (name,) = GAIL(HALF, cheetah, config=replace(config, **change)), change
        with pytest.raises(UserError, match=rf"made with other settings \({name} .*restore the config.yaml"):
            other.load_state_dict(gail.state_dict())
    for place, value in (("num_timesteps", -64), ("num_timesteps", 0.5), ("n_updates", -1)):
        tree = gail.state_dict()
        tree["leader"][place] = value
        with pytest.raises(UserError, match=f"does not fit.*/{place} is {value}, which is no count"):
            GAIL(HALF, cheetah, config=config).load_state_dict(tree)
    GAIL(HALF, cheetah, config=replace(config, device="cpu")).load_state_dict(gail.state_dict())
