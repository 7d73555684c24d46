"""A training that is stopped half-way and taken up again, beside one that is not."""

import pytest

from zoomloc.locator import Locator
from zoomloc.training.loop import train


class Stopped(Exception):
    pass


def trained_both_ways(config, folder, at_step=8) -> tuple[Locator, Locator]:
    """Locators of a run that went through and of one that was stopped after a step."""

    def stop(progress):
        if progress.step == at_step:
            raise Stopped

    train(config, folder / "whole")
    with pytest.raises(Stopped):
        train(config, folder / "parts", stop)
    train(config, folder / "parts")
    return Locator.load(folder / "whole"), Locator.load(folder / "parts")
