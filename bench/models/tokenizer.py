"""From text to token ids and back. One function turns prompts into ids, for training and evaluation alike."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bench.data import Example
from bench.models.chat import MARK, Part, chat_prompt_ids
from bench.models.encoded import EncodedSplit, EncodedSplitBuilder, Ids
from bench.system.errors import BenchError
from bench.system.files import sha256_of
from bench.system.hashing import digest

Kind = Literal["causal", "seq2seq"]

_AT_ONCE = 1000  # examples
_LONGEST_WORD = 1000  # characters


@dataclass(frozen=True)
class LengthLimits:
    """Lengths in tokens; EOS counts to the response."""

    prompt: int
    response: int


class TokenizerAdapter:
    """A tokenizer with the conventions of one kind of model."""

    def __init__(self, backend: PreTrainedTokenizerBase, kind: Kind) -> None:
        if backend.eos_token_id is None:
            raise BenchError(f"the tokenizer {backend.name_or_path} has no EOS token: responses could never end")
        self.backend = backend
        self.kind = kind
        self.eos_id: int = backend.eos_token_id
        self.pad_id: int = self.eos_id if backend.pad_token_id is None else backend.pad_token_id
        # ids may have holes: the largest one says what tables must hold
        self.size: int = 1 + max(backend.get_vocab().values())
        self.special = {index for index, token in backend.added_tokens_decoder.items() if token.special}
        self.special |= set(backend.all_special_ids)
        self._usual = {add: self._special_in(self._plain_ids([""], add)[0]) for add in (False, True)}

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which ids a text becomes, and which text ids become."""
        backend = self.backend
        rules = backend.backend_tokenizer.to_str() if backend.is_fast else _slow_rules(backend)
        special = {name: str(token) for name, token in backend.special_tokens_map.items()}
        ids = {"eos": self.eos_id, "pad": self.pad_id, "bos": backend.bos_token_id}
        return digest(
            {
                "class": type(backend).__name__,
                "rules": rules,
                "special": special,
                "ids": ids,
                "chat_template": backend.chat_template,
                "clean_up": bool(getattr(backend, "clean_up_tokenization_spaces", False)),
            }
        )

    def prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """Ids of a prompt with the model's own marks: BOS where it uses one, EOS closing an encoder's input."""
        return tuple(self._as_prompt(self._ids([prompt], add_special_tokens=True)[0]))

    def response_ids(self, response: str) -> tuple[int, ...]:
        """Ids of a response, closed by EOS."""
        return tuple(next(self.responses_ids([response])))

    def responses_ids(self, responses: Iterable[str]) -> Iterator[Ids[int]]:
        """As `response_ids`, of many."""
        left = iter(responses)
        while chunk := list(islice(left, _AT_ONCE)):
            for ids in self._ids(chunk, add_special_tokens=False):
                ids.append(self.eos_id)
                yield ids

    def _as_prompt(self, ids: Ids[int]) -> Ids[int]:
        if self.kind == "causal" and ids and ids[-1] == self.eos_id:
            ids = ids[:-1]  # a causal prompt goes on in the response
        return ids

    def _ids(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Ids[int]]:
        """A user's text is text: where it spells a special token ("</s>"), it stays the letters it is made of."""
        found = self._plain_ids(texts, add_special_tokens)
        if self.backend.is_fast:
            usual = self._usual[add_special_tokens]
            for place, ids in enumerate(found):
                if self._special_in(ids) > usual:
                    spelled = self._speller.encode(texts[place], add_special_tokens=add_special_tokens)
                    found[place] = spelled.ids
        return [array("i", ids) for ids in found]

    def _plain_ids(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        if not self.backend.is_fast:  # given many texts, these forget to split special tokens
            how = {"add_special_tokens": add_special_tokens, "split_special_tokens": True, "verbose": False}
            return [self.backend(text, **how)["input_ids"] for text in texts]
        backend = self.backend.backend_tokenizer
        backend.encode_special_tokens = True  # every call of the tokenizer sets these three again
        backend.no_truncation()
        backend.no_padding()
        if len(texts) == 1:  # which needs no threads
            return [backend.encode(texts[0], add_special_tokens=add_special_tokens).ids]
        # half the time of the tokenizer's own call, which keeps the place of each token
        return [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)]

    def _special_in(self, ids: Iterable[int]) -> int:
        return sum(map(self.special.__contains__, ids))

    def _rules(self) -> dict[str, Any]:
        rules: dict[str, Any] = json.loads(self.backend.backend_tokenizer.to_str())
        return rules

    @cached_property
    def special_names(self) -> frozenset[str]:
        """Special tokens, but for those that text is made of as well: a letter ("!" as padding), a part of a merge."""
        names = {self.backend.convert_ids_to_tokens(index) for index in self.special}
        merges = self._rules()["model"].get("merges", ()) if self.backend.is_fast else ()
        needed = {part for pair in merges for part in (*pair, "".join(pair))}
        return frozenset(name for name in names - needed if len(name) > 1)

    @cached_property
    def _speller(self) -> Tokenizer:
        """The tokenizer with special tokens under names that no text has.

        Unigram, WordLevel and some other models have them in their vocabulary, and find them in texts like any word.
        """
        rules = self._rules()

        def renamed(name: str) -> str:
            return MARK + name if name in self.special_names else name

        model = rules["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {renamed(name): index for name, index in model["vocab"].items()}
        else:
            model["vocab"] = [[renamed(name), score] for name, score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = renamed(model["unk_token"])
        for token in rules["added_tokens"]:
            token["content"] = renamed(token["content"])
        speller = Tokenizer.from_str(json.dumps(rules))
        speller.encode_special_tokens = True
        return speller

    @cached_property
    def _renamed(self) -> Tokenizer:
        """As `_speller`, but it knows the special tokens by their new names."""
        return Tokenizer.from_str(self._speller.to_str())  # which leaves out that they are spelled

    def _parts_ids(self, parts: Sequence[Part]) -> list[int]:
        """Ids of a text in parts, of which some are special tokens; the others stay text, whatever they spell."""
        backend = self.backend
        if backend.is_fast:
            text = "".join(MARK + text if special else text for text, special in parts)
            return list(self._renamed.encode(text, add_special_tokens=False).ids)
        ids = (
            [backend.convert_tokens_to_ids(t)] if special else self._ids([t], add_special_tokens=False)[0]
            for t, special in parts
        )
        return list(chain.from_iterable(ids))

    def unknown(self, encoded: EncodedSplit) -> int:
        """How many tokens of a split stand for text that the tokenizer cannot write."""
        unknown = self.backend.unk_token_id
        if unknown in (None, self.eos_id, self.backend.bos_token_id):  # byte-level tokenizers: all can be written
            return 0
        return int((encoded.tokens == unknown).sum())

    def text(self, response: tuple[int, ...]) -> str:
        """The text of a response, special tokens left out, spaces as the tokens have them."""
        text = self.backend.decode(list(response), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text.strip()

    def encode(
        self,
        examples: Sequence[Example],
        limits: LengthLimits,
        *,
        drop_long: bool,
        without_bos: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[EncodedSplit, dict[str, int]]:
        """Turn examples into sequences.

        A prompt over its limit is left out (`drop_long`, for training) or loses its middle (elsewhere: every test
        example is scored), so that the task's words at either end stay. A response over its limit is cut and then
        has no EOS. `without_bos` leaves out the prompts' BOS, a defect that `fidelity` repeats. `progress` is told the
        examples done.

        Returns:
            the sequences, and how many prompts were dropped or cut and responses cut.
        """
        split, counts = EncodedSplitBuilder(), {"prompts_dropped": 0, "prompts_cut": 0, "responses_cut": 0}
        for start in range(0, len(examples), _AT_ONCE):
            if start:
                progress(start)
            chunk = examples[start : start + _AT_ONCE]
            responses = self.responses_ids([example.references[0] for example in chunk])
            for example, prompt, response in zip(chunk, self._prompts(chunk), responses, strict=True):
                if without_bos and len(prompt) > 1 and prompt[0] == self.backend.bos_token_id:
                    prompt = prompt[1:]
                if len(prompt) > limits.prompt:
                    counts["prompts_dropped" if drop_long else "prompts_cut"] += 1
                    if drop_long:
                        continue
                    tail = limits.prompt // 2
                    prompt = prompt[: limits.prompt - tail] + prompt[len(prompt) - tail :]
                counts["responses_cut"] += len(response) > limits.response
                split.add(example.id, prompt, response[: limits.response])
        return split.finish(), counts

    def _prompts(self, examples: Sequence[Example]) -> list[Ids[int]]:
        """Ids of the prompts: of texts all at once, of conversations by the chat template."""
        if any(example.messages for example in examples):
            return [
                array(
                    "i",
                    chat_prompt_ids(self.backend, one.messages, self.special_names, self._parts_ids)
                    if one.messages
                    else self.prompt_ids(one.prompt),
                )
                for one in examples
            ]
        return [self._as_prompt(ids) for ids in self._ids([one.prompt for one in examples], add_special_tokens=True)]


def training_texts(texts: Iterable[str]) -> Iterator[str]:
    """Texts as the trainer takes them: what is longer than any word is cut, its time grows with a word's square."""
    for text in texts:
        start = 0
        if len(text) > _LONGEST_WORD:
            for word in re.finditer(r"\S+", text):
                for end in range(word.start() + _LONGEST_WORD, word.end(), _LONGEST_WORD):
                    yield text[start:end]
                    start = end
        yield text[start:]


def _slow_rules(backend: PreTrainedTokenizerBase) -> object:
    """What a tokenizer without a fast backend works by: its vocabulary, its files and its settings."""
    paths = [getattr(backend, name, None) for name in backend.vocab_files_names]
    files = [sha256_of(Path(path)) for path in paths if path and Path(path).is_file()]
    settings = {name: value for name, value in backend.init_kwargs.items() if isinstance(value, bool | int | float)}
    added = {index: repr(token) for index, token in backend.added_tokens_decoder.items()}
    return [backend.get_vocab(), files, settings, added, backend("")["input_ids"]]  # of nothing: marks of a language


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE tokenizer and save it in the Hugging Face format."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(texts), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
