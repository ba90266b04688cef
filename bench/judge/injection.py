"""Responses that speak to the judge instead of to the user are flagged; they are judged all the same.

The patterns err towards flagging: a flag is counted and reported, and the score is given with and without flagged
responses, so a false alarm costs nothing.
"""

from __future__ import annotations

import re

_MARK = r"(?:top marks?|full marks?|(?:perfect|highest|maximum|best) (?:score|rating|mark|grade)|10|ten)\b"
PATTERNS: dict[str, re.Pattern[str]] = {
    "asks for a rating": re.compile(
        rf"\b(?:rate|score|grade|give|award|assign|deserves?|rating|choose|prefer)\b[^\n]{{0,60}}?\b{_MARK}"
        r"|\b(?:rate|grade|prefer|choose|pick)\s+(?:me|this response|this answer|assistant)\b",
        re.IGNORECASE,
    ),
    "states a verdict": re.compile(
        r"^[ \t>*#]*(?:\d{1,2}(?:\.\d+)?[ \t]*[ \t,;/:|][ \t]*\d{1,2}(?:\.\d+)?"
        r"|(?:verdict|score|rating)s?[ \t]*[:=].*\d.*|\[\[.{1,4}\]\]|tie)[ \t*]*$",
        re.IGNORECASE | re.MULTILINE,
    ),
    "imitates the quotation": re.compile(
        r"\[[ \t]*(?:/|the[ \t]+)?"
        r"(?:end|start|begin|beginning|request|response|question|assistant|system|user)\b[^\]\n]*\]"
        r"|<\|?/?(?:im_start|im_end|system|assistant|user|endoftext|eot_id)\b[^>]*>|\[/?INST\]"
        r"|^[ \t#*]*(?:assistant [12AB]|system)[ \t*]*:",
        re.IGNORECASE | re.MULTILINE,
    ),
    "overrides instructions": re.compile(
        r"\b(?:ignore|disregard|forget|override)\b[^\n]{0,40}\b(?:instructions?|prompts?|rules?|above|previous|prior|order)\b"
        r"|\b(?:to|dear|attention|note to|as) (?:the |an? )?(?:judge|grader|evaluator|examiner|rater)\b"
        r"|\b(?:other|second|first) (?:assistant|response|answer) (?:is|was|deserves) (?:wrong|bad|worse|a? ?1|one)\b",
        re.IGNORECASE,
    ),
}


def suspicions(response: str) -> tuple[str, ...]:
    """Names of the patterns that a response matches."""
    return tuple(name for name, pattern in PATTERNS.items() if pattern.search(response))
