"""What judging will cost, by a stated rule; and a purse that is not overdrawn, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bench.judge.messages import Answer, Request
from bench.judge.unpaid import Ledger
from bench.system.errors import BenchError

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
_MOST_TOKENS_PER_MESSAGE = 32  # what servers put around a message, generously
RULE = (
    f"a token for every {BYTES_PER_TOKEN} bytes of text and {TOKENS_PER_MESSAGE} a message, "
    "every answer at its limit; answers that cannot be read and are asked for again come on top"
)


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens, in whatever currency the bill is in.

    Raises:
        BenchError: they are no prices.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not all(0 <= price < math.inf for price in (self.prompt, self.completion)):
            raise BenchError(f"--prices {self.prompt:g},{self.completion:g}: expected two numbers of 0 or more")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    def most(self, request: Request) -> float:
        """The most a request can cost: no tokenizer makes more tokens than there are bytes."""
        size = sum(len(message["content"].encode()) for message in request.messages)
        return self.of(size + _MOST_TOKENS_PER_MESSAGE * len(request.messages), request.judge.max_tokens)

    def paid(self, request: Request, answer: Answer) -> float:
        """What an answer cost; the most it can have cost where the server does not say."""
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            return self.most(request)
        return self.of(answer.prompt_tokens, answer.completion_tokens)


def prompt_tokens(request: Request) -> int:
    """Tokens of a request by the rule: more than tokenizers make of English, about right for other scripts."""
    size = sum(len(message["content"].encode()) for message in request.messages)
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(request.messages)


@dataclass(frozen=True)
class Estimate:
    """What is to be asked, about what it will cost, and what is spent already.

    Attributes:
        answers: answers needed, each different question once.
        kept: of these, how many are on disk already.
        prompt_tokens: of the rest, by `RULE`.
        completion_tokens: of the rest, every answer at its limit.
        cost: of the rest; None without prices.
        spent: on these questions so far, with what may have been paid for in vain; None without prices.
    """

    answers: int
    kept: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    spent: float | None

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "rule": RULE}


def estimate(answers: int, pending: Iterable[Request], prices: Prices | None, spent: float) -> Estimate:
    """Estimate the cost of the pending among all requests."""
    requests = list(pending)
    prompts = sum(map(prompt_tokens, requests))
    completions = sum(request.judge.max_tokens for request in requests)
    cost = prices.of(prompts, completions) if prices else None
    return Estimate(answers, answers - len(requests), prompts, completions, cost, spent if prices else None)


class Purse:
    """Keeps what some questions cost in all below a limit.

    A request is paid for by the most it can cost before it is sent. Its answer's price takes the place of that; without
    an answer it stays, unless the server has certainly not answered. What earlier commands spent counts.

    Args:
        ledger: where requests without an answer are written down.
        prices: None if unknown; nothing is counted then.
        limit: the most to be spent; None for no limit.
        spent: what is spent already.
    """

    def __init__(self, ledger: Ledger, prices: Prices | None, limit: float | None, spent: float = 0.0) -> None:
        self.ledger, self.prices, self.limit, self.spent = ledger, prices, limit, spent
        self.on_their_way = 0
        self._back = asyncio.Event()

    def fits(self, request: Request) -> bool:
        """Whether a request can be paid for, whatever becomes of it."""
        return self.prices is None or self.limit is None or self.spent + self.prices.most(request) <= self.limit

    def empty(self) -> BenchError:
        """The error for a request that does not fit."""
        return BenchError(
            f"stopped before --max-cost {self.limit:g} could be passed: these questions have cost {self.spent:.4f} so "
            "far, earlier commands and unanswered requests included. Answers are kept: the same command with a higher "
            "--max-cost goes on"
        )

    async def reserve(self, request: Request) -> None:
        """Pay for a request that is about to be sent.

        Raises:
            BenchError: it might cost more than is left, and nothing is on its way that might turn out cheaper.
        """
        while not self.fits(request):
            if not self.on_their_way:
                raise self.empty()
            self._back.clear()
            await self._back.wait()
        self.on_their_way += 1
        self.spent += self.most(request)
        self.ledger.add(request.key)

    def lost(self) -> None:
        """No answer came, though one may have been paid for."""
        self._came_back(0.0)

    def unpaid(self, request: Request) -> None:
        """The server has certainly not answered."""
        self._came_back(-self.most(request))
        self.ledger.remove(request.key)

    def settle(self, request: Request, answer: Answer) -> None:
        """An answer came, and is kept."""
        self._came_back(self.price(request, answer) - self.most(request))
        self.ledger.remove(request.key)

    def price(self, request: Request, answer: Answer) -> float:
        """What an answer cost."""
        return self.prices.paid(request, answer) if self.prices else 0.0

    def most(self, request: Request) -> float:
        """The most a request can cost."""
        return self.prices.most(request) if self.prices else 0.0

    def _came_back(self, change: float) -> None:
        self.spent += change
        self.on_their_way -= 1
        self._back.set()
