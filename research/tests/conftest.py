"""The devices, the checks of shapes and the tiny model of the product's tests."""

from tests.conftest import *  # noqa: F403
