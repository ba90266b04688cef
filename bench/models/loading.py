"""Loading networks and tokenizers, and the checks that a pair fits together."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.hub import cached_file

from bench.config.presets import read_pair, shipped
from bench.models.architectures import (
    AUTO,
    SPECIAL_IDS,
    as_used_here,
    check_reads_forward,
    compute_gelu_in_one_kernel,
    mend_generation_config,
    outline,
    reason_of,
    some_of,
)
from bench.models.lora import base_of, load_adapter, merged
from bench.models.tokenizer import Kind, TokenizerAdapter
from bench.system.artifacts import MANIFEST
from bench.system.errors import BenchError
from bench.system.files import damage, lfs_pointer, read_json
from bench.system.hub import COMMITS, behind, missing_package, place, tell_soon_if_unreachable, what_failed

_FILES = {
    "model": ("model*.safetensors", "pytorch_model*.bin"),
    "tokenizer": ("tokenizer.json", "*.model", "vocab.*", "merges.txt"),
}


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a local folder or the hub; that of its base for an adapter without one.

    Raises:
        BenchError: it cannot be had.
    """
    repository, at = place(name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(repository, **at, trust_remote_code=False)
        folder = _folder(name)
        if folder is not None and _is_generic(folder) and type(tokenizer) is not PreTrainedTokenizerFast:
            # some families (Qwen2) have their own rules put in the place of those in tokenizer.json
            tokenizer = PreTrainedTokenizerFast.from_pretrained(repository, **at)
        files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
        if Path(name).is_dir() and tokenizer.vocab_files_names and not any((Path(name) / f).is_file() for f in files):
            raise FileNotFoundError("it has no vocabulary")  # transformers makes an empty one for some families
    except Exception as error:  # transformers raises many kinds for the same cause
        if (base := base_of(name)) != name:  # many adapters come without their base's tokenizer
            return load_tokenizer(base)
        raise _unloadable("tokenizer", name, error) from error
    return tokenizer


def _is_generic(folder: Path) -> bool:
    """Whether a folder's tokenizer is of no family: all its rules are in tokenizer.json."""
    settings = folder / "tokenizer_config.json"
    if not (settings.is_file() and (folder / "tokenizer.json").is_file()):
        return False
    return read_json(settings).get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")


def load_architecture(name: str) -> PretrainedConfig:
    """A model's configuration from a local folder or the hub; an adapter's is that of its base.

    Raises:
        BenchError: it cannot be had.
    """
    name = base_of(name)
    repository, at = place(name)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(repository, **at, trust_remote_code=False)
    except Exception as error:
        raise _unloadable("model", name, error) from error
    if config._commit_hash is not None:
        COMMITS[name] = config._commit_hash
    return as_used_here(config)


def load_network(name: str, kind: Kind, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model from a local folder or the hub; an adapter is merged into its base.

    Raises:
        BenchError: it cannot be had, it is of the other kind, it is damaged, or its checkpoint lacks weights.
    """
    if (base := base_of(name)) != name:
        _check_undamaged(Path(name))
        plain = load_network(base, kind, dtype)
        trained = [weight for weight in plain.parameters() if weight.requires_grad]
        plain = merged(load_adapter(plain, name, trainable=False))
        for weight in trained:  # peft has frozen them
            weight.requires_grad_(True)
        return plain
    config = load_architecture(name)
    check_kind(name, config, kind)
    _check_undamaged(Path(name))
    # transformers would ask a service of the hub to convert what is a .bin file, and wait for it in the background
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    repository, at = place(name)
    try:
        network, found = AUTO[kind].from_pretrained(
            repository, **at, config=config, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:
        raise _unloadable("model", name, error) from error
    _check_complete(name, found, network)
    try:
        check_reads_forward(network, kind)
    except Exception as error:
        quantizer = getattr(network, "hf_quantizer", None)  # whose kernels may not be there, in ways of their own
        if quantizer is None and not isinstance(error, ValueError):
            raise
        by = "" if quantizer is None else f", quantized by {quantizer.quantization_config.quant_method.value}"
        raise BenchError(f"{name} cannot be used as a {kind} model{by}: {reason_of(error)}") from error
    mend_generation_config(network)
    compute_gelu_in_one_kernel(network)
    model: PreTrainedModel = network
    return model


def _check_undamaged(folder: Path) -> None:
    """Refuse weights that were saved here and have changed since: they would load, and give other numbers."""
    found = damage(folder / MANIFEST, only=".safetensors")
    if found is not None and found != MANIFEST:
        raise BenchError(
            f"{folder / found} is damaged or was changed since it was written; make it again with --fresh, or remove "
            f"{folder / MANIFEST} if you changed it"
        )


def _check_complete(name: str, found: Mapping[str, Iterable[object]], network: PreTrainedModel) -> None:
    """Refuse a checkpoint that is not the network's: transformers would fill with random numbers what it lacks.

    More than the network has is left out, unless the network would compute otherwise with it: more of the same, such as
    layers or experts that config.json leaves out, and what belongs into a layer that is there, such as a bias.
    """
    lacking = {what: sorted(map(str, found[f"{what}_keys"])) for what in ("missing", "mismatched", "unexpected")}
    kinds = {_without_numbers(weight) for weight, _ in network.named_parameters()}
    modules = dict(network.named_modules())
    left_out = any(_without_numbers(w) in kinds or _is_of_a_layer(w, modules) for w in lacking["unexpected"])
    if not (lacking["missing"] or lacking["mismatched"] or left_out):
        return
    told = [f"{what}: {some_of(names)}" for what, names in lacking.items() if names]
    raise BenchError(
        f"{name}: the checkpoint does not hold the weights of its config.json ({'; '.join(told)}). "
        "Save the whole model again (save_pretrained), with the names that transformers gives its weights"
    )


def _is_of_a_layer(weight: str, modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether a weight that no module has belongs to one that has others, or to a part that one of the layers lacks.

    A module without weights of its own may have had buffers, as GPT-2's attention has its mask, under the name `bias`.
    """
    parent, _, name = weight.rpartition(".")
    if name not in ("weight", "bias"):
        return False
    if parent in modules:
        return any(True for _ in modules[parent].parameters(recurse=False))
    layer = re.match(r".*\.\d+(?=\.)", parent)
    return layer is not None and layer.group() in modules


def _without_numbers(weight: str) -> str:
    return re.sub(r"\d+", "N", weight)


def _unloadable(what: str, name: str, error: Exception) -> BenchError:
    if (broken := _broken_file(what, name, error)) is not None:
        return BenchError(f"{name}: no {what} can be loaded: {broken}")
    reason = reason_of(error)
    if Path(name).is_dir():
        lacking = (missing_package(one) for one in behind(error) if isinstance(one, ImportError))
        if (package := next(filter(None, lacking), None)) is not None:
            reason = f"the package {package} is not installed: pip install {package}"
        needed = "config.json and model.safetensors" if what == "model" else "tokenizer.json (or vocabulary files)"
        return BenchError(f"{name}: the folder is no {what} transformers can load ({reason}). It needs {needed}.")
    if Path(name).is_absolute() or name.startswith("."):
        return BenchError(f"{name}: there is no such folder, so no {what} can be loaded from it")
    known = (model for pair in shipped("pairs") for model in read_pair(pair).settings["models"].values())
    told = what_failed(what, name, error, [model for model in known if isinstance(model, str) and "/" in model])
    if told is None:
        return BenchError(f"the {what} {name!r} of the hub is none transformers can load ({reason})")
    return BenchError(
        f"the {what} {name!r} is no local folder, and {told}\n"
        "A local folder would do in its place: of a run, --set models.teacher=FOLDER --set models.student=FOLDER"
    )


def _broken_file(what: str, name: str, error: Exception) -> str | None:
    """What is wrong with a file that transformers could not read; None where that is not known."""
    folder = _folder(name)
    if folder is None:
        return None
    groups = (sorted(folder.glob(kind)) for kind in _FILES[what])
    # of weights, transformers takes the first kind that is there
    files = next(filter(None, groups), []) if what == "model" else [path for group in groups for path in group]
    if (pointer := lfs_pointer(files)) is not None:
        mend = "`git lfs pull` brings it" if Path(name).is_dir() else "its owner has to push the file itself"
        return f"{pointer} is only a pointer of Git LFS to the file: {mend}"
    sentencepiece = next((path for path in files if path.suffix == ".model"), None)
    lacking = {missing_package(one) for one in behind(error) if isinstance(one, ImportError)}
    # transformers takes a file that SentencePiece cannot read for one of tiktoken
    if sentencepiece is not None and "tiktoken" in lacking:
        return (
            f"{sentencepiece} cannot be read as a SentencePiece file: it is damaged (remove it, and download or copy "
            "it again), or it is a file of tiktoken, which needs pip install tiktoken"
        )
    return None


def _folder(name: str) -> Path | None:
    """Where a model's files are: a local folder, or the one with what was downloaded; None where nothing was."""
    if Path(name).is_dir():
        return Path(name)
    repository, at = place(name)
    try:
        return Path(
            snapshot_download(repository, revision=at.get("revision"), allow_patterns=[], local_files_only=True)
        )
    except (OSError, ValueError):  # it was never downloaded, or the name is no id
        return None


def load_generation_settings(folder: Path) -> GenerationConfig | None:
    """The settings for sampling beside a local model; None where there are none.

    Raises:
        BenchError: transformers would refuse them when the model is loaded, or special ids are no numbers.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    try:
        settings: GenerationConfig = GenerationConfig.from_pretrained(folder)
    except Exception as error:
        raise BenchError(f"{path}: transformers refuses these settings: {reason_of(error)}") from error
    for name in SPECIAL_IDS:
        value = getattr(settings, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and type(one) is not int:
                raise BenchError(f"{path}: {name} has to be a whole number, got {one!r}")
    return settings


def check_same_vocabulary(
    teacher: TokenizerAdapter, student: TokenizerAdapter, teacher_name: str, student_name: str
) -> None:
    """Refuse a pair whose distributions are not over the same tokens.

    Raises:
        BenchError: the vocabularies differ; says by how much.
    """
    ours, theirs = teacher.backend.get_vocab(), student.backend.get_vocab()
    if ours != theirs:
        shared = sum(theirs.get(token) == index for token, index in ours.items())
        raise BenchError(
            f"{teacher_name} ({len(ours)} tokens) and {student_name} ({len(theirs)} tokens) have different "
            f"vocabularies ({shared} tokens in common at the same id): their distributions cannot be compared. "
            "Choose a student of the teacher's family, or one from scratch: --set models.student=scratch"
        )


def check_kind(name: str, architecture: PretrainedConfig, kind: Kind) -> None:
    """Refuse a model of the other kind.

    Raises:
        BenchError: it is.
    """
    if architecture.is_encoder_decoder != (kind == "seq2seq"):
        other = "seq2seq" if architecture.is_encoder_decoder else "causal"
        raise BenchError(f"{name} is a {other} model, the pair is {kind}: choose another --models")


def parameter_count(name: str, kind: Kind) -> int:
    """Number of parameters of a model, shared ones once, without loading its weights."""
    network = outline(name, load_architecture(name), kind)
    count: int = sum(p.numel() for p in network.parameters())
    head = network.get_output_embeddings()
    tied = head is not None and head.weight is network.get_input_embeddings().weight
    own: int = head.weight.numel() if tied and has_own_head(name, kind) else 0
    return count + own


def has_own_head(name: str, kind: Kind) -> bool:
    """Whether a checkpoint has an output layer that differs from its embeddings.

    transformers then loads both, though T5's and mT5's configurations say that they are tied whatever config.json says.
    Where the checkpoint is not on this machine, it is what config.json says.
    """
    files = _weight_files(name)
    if not files:
        repository, at = place(base_of(name))
        given, _ = PretrainedConfig.get_config_dict(repository, **at)
        return given.get("tie_word_embeddings") is False
    network = outline(name, load_architecture(name), kind)
    names = {id(module): path for path, module in network.named_modules()}
    wanted = [f"{names[id(part)]}.weight" for part in (network.get_output_embeddings(), network.get_input_embeddings())]
    found: dict[str, torch.Tensor] = {}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found |= {key: file.get_tensor(key) for key in wanted if key in file.keys()}  # noqa: SIM118
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found |= {key: weights[key] for key in wanted if key in weights}
    head, embeddings = (found.get(key) for key in wanted)
    return head is not None and embeddings is not None and not torch.equal(head, embeddings)


def _weight_files(name: str) -> list[Path]:
    """Files of a checkpoint that is on this machine as a whole, else none; of an adapter, its base's."""
    repository, at = place(base_of(name))
    for file in (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ):
        try:
            found = cached_file(
                repository, file, **at, local_files_only=True, _raise_exceptions_for_missing_entries=False
            )
        except OSError:  # nothing of it is here
            return []
        if found is not None and file.endswith(".json"):
            parts = [Path(found).parent / part for part in sorted(set(read_json(Path(found))["weight_map"].values()))]
            return parts if all(part.is_file() for part in parts) else []
        if found is not None:
            return [Path(found)]
    return []


def quiet_libraries() -> None:
    """Keep progress bars and advice of the libraries out of the display, and waits for a hub out of reach short."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("transformers", "datasets", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tell_soon_if_unreachable()
