"""From text to token ids and back. One function turns prompts into ids, for training and evaluation alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bench.data import Example
from bench.models.chat import chat_prompt_ids
from bench.system.errors import BenchError
from bench.system.hashing import digest
from distillm import TokenSequence

Kind = Literal["causal", "seq2seq"]


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

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which ids a text becomes, and which text ids become."""
        backend = self.backend
        rules = backend.backend_tokenizer.to_str() if backend.is_fast else backend.get_vocab()
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
        ids: list[int] = self._ids(prompt, add_special_tokens=True)
        if self.kind == "causal" and ids and ids[-1] == self.eos_id:
            ids = ids[:-1]  # a causal prompt goes on in the response
        return tuple(ids)

    def response_ids(self, response: str) -> tuple[int, ...]:
        """Ids of a response, closed by EOS."""
        ids: list[int] = self._ids(response, add_special_tokens=False)
        return (*ids, self.eos_id)

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """A user's text is text: where it spells a special token ("</s>"), it stays the letters it is made of."""
        ids: list[int] = self.backend(
            text, add_special_tokens=add_special_tokens, split_special_tokens=True, verbose=False
        )["input_ids"]
        return ids

    def text(self, response: tuple[int, ...]) -> str:
        """The text of a response, special tokens left out."""
        text = self.backend.decode(list(response), skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()

    def encode(
        self, examples: tuple[Example, ...], limits: LengthLimits, *, drop_long: bool, without_bos: bool = False
    ) -> tuple[list[TokenSequence], dict[str, int]]:
        """Turn examples into sequences.

        A prompt over its limit is left out (`drop_long`, for training) or loses its middle (elsewhere: every test
        example is scored), so that the task's words at either end stay. A response over its limit is cut and then
        has no EOS. `without_bos` leaves out the prompts' BOS, a defect that `fidelity` repeats.

        Returns:
            the sequences, and how many prompts were dropped or cut and responses cut.
        """
        sequences, counts = [], {"prompts_dropped": 0, "prompts_cut": 0, "responses_cut": 0}
        for example in examples:
            if example.messages is None:
                prompt = self.prompt_ids(example.prompt)
            else:
                prompt = chat_prompt_ids(self.backend, example.messages)
            response = self.response_ids(example.references[0])
            if without_bos and len(prompt) > 1 and prompt[0] == self.backend.bos_token_id:
                prompt = prompt[1:]
            if len(prompt) > limits.prompt:
                counts["prompts_dropped" if drop_long else "prompts_cut"] += 1
                if drop_long:
                    continue
                tail = limits.prompt // 2
                prompt = prompt[: limits.prompt - tail] + prompt[len(prompt) - tail :]
            counts["responses_cut"] += len(response) > limits.response
            sequences.append(TokenSequence(example.id, prompt, response[: limits.response]))
        return sequences, counts


def train_tokenizer(texts: list[str], vocab_size: int, folder: Path) -> None:
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
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
