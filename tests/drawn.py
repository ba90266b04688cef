"""The random numbers of a golden trace, for output sources."""

import random


class Drawn(random.Random):
    """The draw of a trace for `random()`, true random bits for drawing from the buffer."""

    def __init__(self, draw: float) -> None:
        super().__init__(0)
        self.draw = draw

    def random(self) -> float:
        return self.draw

    def getrandbits(self, k: int) -> int:  # without it, sampling would be made of `random`
        return super().getrandbits(k)
