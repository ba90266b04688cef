"""What judging will cost, by a stated rule; and a budget that holds even when requests fail after they were billed."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict, dataclass
from typing import Any

from bench.judge.answers import AnswerCache
from bench.judge.messages import Answer, Request
from bench.system.errors import BenchError

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
_MAX_TOKENS_PER_MESSAGE = 32  # what servers add around a message, generously
RULE = (
    f"one token per {BYTES_PER_TOKEN} bytes of text and {TOKENS_PER_MESSAGE} per message, every answer as long as "
    "allowed; answers that cannot be read and are asked for again are not included"
)


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens, in the currency of the bill.

    Raises:
        BenchError: a price is negative, infinite or NaN.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not all(0 <= price < math.inf for price in (self.prompt, self.completion)):
            raise BenchError(f"--prices {self.prompt:g},{self.completion:g}: expected two numbers of 0 or more")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    def upper_bound(self, request: Request) -> float:
        """The most that a request can cost: no tokenizer makes more tokens than there are bytes."""
        size = _size(request) + _MAX_TOKENS_PER_MESSAGE * len(request.messages)
        return self.cost(size, request.max_tokens)

    def paid(self, request: Request, answer: Answer) -> float:
        """What an answer cost; the most that it can have cost where the server does not say."""
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            return self.upper_bound(request)
        return self.cost(answer.prompt_tokens, answer.completion_tokens)


FREE = Prices(0.0, 0.0)
"""Where no prices are given."""


def _size(request: Request) -> int:
    """Bytes of a request's texts."""
    return sum(len(message.content.encode()) for message in request.messages)


def estimated_prompt_tokens(request: Request) -> int:
    """Tokens of a request by `RULE`: more than tokenizers make of English, about right for other scripts."""
    return -(-_size(request) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(request.messages)


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked, about what that will cost, and what was spent so far.

    Attributes:
        answers: answers needed, each distinct question once.
        kept: how many of them are on disk.
        prompt_tokens: of the others, by `RULE`.
        completion_tokens: of the others, by `RULE`.
        cost: of the others; None without prices.
        spent: on these questions so far, unanswered requests included; None without prices.
    """

    answers: int
    kept: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    spent: float | None

    def plain(self) -> dict[str, Any]:
        """As plain values, with the rule."""
        return {**asdict(self), "rule": RULE}


class Budget:
    """Keeps the total cost of a set of questions within a limit.

    Before a request is sent, the most that it can cost is spent (`reserve`). Its answer replaces that by the true price
    (`settle`). If no answer comes, it stays spent, unless the server has certainly not answered (`refund`).

    Args:
        answers: where requests in flight and without an answer are counted.
        prices: `FREE` if unknown.
        limit: the most to spend; None for no limit.
        spent: what was spent before, by earlier commands too.
    """

    def __init__(self, answers: AnswerCache, prices: Prices, limit: float | None, spent: float = 0.0) -> None:
        self.answers, self.prices, self.limit, self.spent = answers, prices, limit, spent
        self._in_flight = 0
        self._returned = asyncio.Event()

    def affords(self, request: Request) -> bool:
        """Whether the limit is kept if this request costs the most that it can."""
        return self.limit is None or self.spent + self.prices.upper_bound(request) <= self.limit

    def limit_reached(self) -> BenchError:
        """The error for a request that cannot be afforded."""
        return BenchError(
            f"stopped before the total could exceed --max-cost {self.limit:g}: these questions have cost "
            f"{self.spent:.4f} so far, earlier commands and unanswered requests included. Answers are kept: the same "
            "command with a higher --max-cost continues"
        )

    async def reserve(self, request: Request) -> None:
        """Spend the most that a request can cost, before it is sent; wait for answers that may turn out cheaper.

        Raises:
            BenchError: the limit does not allow it, and no request is in flight.
        """
        while not self.affords(request):
            if not self._in_flight:
                raise self.limit_reached()
            self._returned.clear()
            await self._returned.wait()
        self._in_flight += 1
        self.spent += self.prices.upper_bound(request)
        self.answers.add_unanswered(request.key)

    def lose(self) -> None:
        """No answer came, though one may have been billed."""
        self._return(0.0)

    def refund(self, request: Request) -> None:
        """The server has certainly not answered."""
        self._return(-self.prices.upper_bound(request))
        self.answers.remove_unanswered(request.key)

    def settle(self, request: Request, answer: Answer) -> None:
        """An answer came and is kept."""
        self._return(self.prices.paid(request, answer) - self.prices.upper_bound(request))
        self.answers.remove_unanswered(request.key)

    def _return(self, change: float) -> None:
        self.spent += change
        self._in_flight -= 1
        self._returned.set()
