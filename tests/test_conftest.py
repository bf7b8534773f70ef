import pytest


def test_starting_ray_fails_in_a_test_without_the_mark() -> None:
    ray = pytest.importorskip("ray")
    with pytest.raises(pytest.fail.Exception, match="mark it `ray`"):
        ray.init()
    assert not ray.is_initialized()


def test_starting_ray_by_the_back_door_fails_too() -> None:
    ray = pytest.importorskip("ray")
    work = ray.remote(lambda: 1)
    with pytest.raises(pytest.fail.Exception, match="mark it `ray`"):
        work.remote()
