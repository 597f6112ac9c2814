"""The lock of a run's folder."""

import errno

import pytest

from l2l_experiment.lock import fcntl, is_locked, lock

pytestmark = pytest.mark.skipif(fcntl is None, reason="no file locks on this system")


def test_one_holds_it_until_the_block_ends(tmp_path):
    path = tmp_path / ".lock"
    assert not is_locked(path)
    assert not path.exists()
    with lock(path):
        assert is_locked(path)
        with pytest.raises(BlockingIOError), lock(path):
            pass
    assert not is_locked(path)


@pytest.mark.parametrize(("number", "held"), [(errno.EACCES, True), (errno.ENOLCK, False), (errno.ENOSYS, False)])
def test_network_file_systems_answer_in_their_own_ways(tmp_path, monkeypatch, number, held):
    def answer(file, how):
        assert file.writable()  # a lock on a file open for reading alone is refused there
        raise OSError(number, "as NFS or Lustre say it")

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(fcntl, "flock", answer)
    assert is_locked(tmp_path / ".lock") == held
