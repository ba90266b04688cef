"""What judging will cost at most, by a stated rule, and a purse that is not overdrawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bench.errors import BenchError
from bench.judge.requests import Answer, Request

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
RULE = (
    f"a token for every {BYTES_PER_TOKEN} bytes of text and {TOKENS_PER_MESSAGE} a message, "
    "every answer at its limit; answers that cannot be read and are asked for again come on top"
)


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens, in whatever currency the bill is in."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def prompt_tokens(request: Request) -> int:
    """Tokens of a request by the rule: more than tokenizers make of English, about right for other scripts."""
    size = sum(len(message["content"].encode()) for message in request.messages)
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(request.messages)


@dataclass(frozen=True)
class Estimate:
    """What is to be asked, and the most it may cost.

    Attributes:
        answers: answers needed, each different question once.
        kept: of these, how many are on disk already.
        prompt_tokens: of the rest, by `RULE`.
        completion_tokens: of the rest, every answer at its limit.
        cost: of the rest; None without prices.
    """

    answers: int
    kept: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "rule": RULE}


def estimate(answers: int, pending: Iterable[Request], prices: Prices | None) -> Estimate:
    """Estimate the cost of the pending among all requests."""
    requests = list(pending)
    prompts = sum(map(prompt_tokens, requests))
    completions = sum(request.judge.max_tokens for request in requests)
    cost = prices.of(prompts, completions) if prices else None
    return Estimate(answers, answers - len(requests), prompts, completions, cost)


class Purse:
    """Keeps spending below a limit: a request is paid for by its estimate before it is sent, by its usage after.

    Args:
        prices: None if unknown; nothing is counted then.
        limit: the most to be spent; None for no limit.
    """

    def __init__(self, prices: Prices | None, limit: float | None) -> None:
        self.prices, self.limit, self.spent = prices, limit, 0.0

    def reserve(self, request: Request) -> float:
        """Set aside what a request may cost.

        Raises:
            BenchError: it might cost more than is left.
        """
        if self.prices is None:
            return 0.0
        most = self.prices.of(prompt_tokens(request), request.judge.max_tokens)
        if self.limit is not None and self.spent + most > self.limit:
            raise BenchError(
                f"stopped before --max-cost {self.limit:g} could be passed, {self.spent:.4f} being spent or on its "
                "way; answers are kept: the same command with a higher --max-cost goes on"
            )
        self.spent += most
        return most

    def settle(self, reserved: float, answer: Answer) -> None:
        """Replace what was set aside by what the server says was used."""
        if self.prices and answer.prompt_tokens is not None and answer.completion_tokens is not None:
            self.spent += self.prices.of(answer.prompt_tokens, answer.completion_tokens) - reserved
