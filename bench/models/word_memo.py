"""Ids of English text word by word: several times as fast as the tokenizer, with the same ids.

Byte-level BPE as GPT-2 has it cuts a text into words by one regular expression and looks at each word alone. For ASCII
text that expression is `_WORDS`, so each word has to be given to the tokenizer once only.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from itertools import chain

from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase

# that of tokenizers.pre_tokenizers.ByteLevel, with the letters and digits of ASCII
_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)
_MOST = 4_000_000  # characters of the words that are remembered

Ids = array  # of C integers: its parts are put together without a Python object a token
Encode = Callable[[Sequence[str]], "list[Ids[int]]"]


class WordMemo:
    """Remembers the ids of words.

    Args:
        encode: the tokenizer's ids of texts, without special tokens.
    """

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self.known: dict[str, bytes] = {}
        self.characters = 0

    def __call__(self, texts: Sequence[str]) -> list[Ids[int]]:
        """What `encode` gives for texts in ASCII."""
        cut = [_WORDS.findall(text) for text in texts]
        missing = list(set(chain.from_iterable(cut)) - self.known.keys())
        if missing:
            self.known.update(zip(missing, (ids.tobytes() for ids in self.encode(missing)), strict=True))
            self.characters += sum(map(len, missing))
        found = [array("i", b"".join(map(self.known.__getitem__, words))) for words in cut]
        if self.characters > _MOST:
            self.known, self.characters = {}, 0
        return found


def word_memo(backend: PreTrainedTokenizerBase, encode: Encode) -> WordMemo | None:
    """A memo for a tokenizer that takes words alone; None for another kind."""
    if not backend.is_fast:
        return None
    parts = backend.backend_tokenizer
    alone = (
        parts.normalizer is None
        and type(parts.pre_tokenizer) is pre_tokenizers.ByteLevel
        and parts.pre_tokenizer.use_regex
        and not parts.pre_tokenizer.add_prefix_space
        and type(parts.model) is models.BPE
        and not parts.model.dropout
        and all(token.special for token in backend.added_tokens_decoder.values())
    )
    return WordMemo(encode) if alone else None


def constant_marks(backend: PreTrainedTokenizerBase) -> bool:
    """Whether the special tokens around a text are the same for every text."""
    kinds = (type(None), processors.ByteLevel, processors.TemplateProcessing)
    return isinstance(backend.backend_tokenizer.post_processor, kinds)
