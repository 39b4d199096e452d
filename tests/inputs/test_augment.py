import numpy as np

from flamingo_jax.inputs import augment


def test_views_differ_by_chance_alone_and_all_frames_are_seen_alike():
    image = np.full((2, 32, 32, 3), 255, np.uint8)
    image[:, 8:24, 8:24] = (200, 40, 40)
    views = [augment.view(image, np.random.default_rng(seed)) for seed in range(40)]
    again = augment.view(image, np.random.default_rng(3))
    np.testing.assert_array_equal(again, views[3])
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
    assert all((view[0] == view[1]).all() for view in views)
    assert len({view.tobytes() for view in views}) == len(views)
    grey = sum((np.ptp(view[0].astype(int), axis=-1).max() < 8) for view in views)
    assert 1 <= grey < 20  # Some lose their colour, most do not.
