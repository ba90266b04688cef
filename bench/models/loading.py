"""Loading and making networks and tokenizers, and the checks that a pair fits together."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.utils.hub import cached_file

from bench.config.presets import read_pair, shipped
from bench.models.lora import base_of, load_adapter, merged
from bench.models.tokenizer import Kind, TokenizerAdapter
from bench.system.artifacts import MANIFEST
from bench.system.errors import BenchError, did_you_mean
from bench.system.files import damage, lfs_pointer, read_json
from bench.system.hub import COMMITS, behind, missing_package, place, what_failed
from bench.system.seeding import seed_torch

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_FILES = {
    "model": ("model*.safetensors", "pytorch_model*.bin"),
    "tokenizer": ("tokenizer.json", "*.model", "vocab.*", "merges.txt"),
}
_AUTO: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}


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
    return _as_used_here(config)


def _as_used_here(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration whose forward pass returns logits and nothing that would cost time, memory or another loss."""
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        part.return_dict = True
        for name in ("output_router_logits", "output_attentions", "output_hidden_states"):
            if getattr(part, name, False):
                setattr(part, name, False)
    return config


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
        network, found = _AUTO[kind].from_pretrained(
            repository, **at, config=config, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:
        raise _unloadable("model", name, error) from error
    _check_complete(name, found, network)
    try:
        _check_reads_forward(network, kind)
    except Exception as error:
        quantizer = getattr(network, "hf_quantizer", None)  # whose kernels may not be there, in ways of their own
        if quantizer is None and not isinstance(error, ValueError):
            raise
        by = "" if quantizer is None else f", quantized by {quantizer.quantization_config.quant_method.value}"
        raise BenchError(f"{name} cannot be used as a {kind} model{by}: {_reason(error)}") from error
    _mend_generation_config(network)
    _compute_gelu_in_one_kernel(network)
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
    told = [f"{what}: {_some(names)}" for what, names in lacking.items() if names]
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


def _mend_generation_config(network: PreTrainedModel) -> None:
    """Keep only the special ids of generation settings that transformers would refuse to save.

    Many checkpoints have a temperature beside do_sample=false. Sampling here never reads these settings; saving the
    student after a whole training does.
    """
    given = network.generation_config
    try:
        given.validate(strict=True)
    except ValueError:
        kept = {name: getattr(given, name) for name in _SPECIAL_IDS}
        # many write -1 where there is no padding
        kept = {name: None if isinstance(value, int) and value < 0 else value for name, value in kept.items()}
        network.generation_config = GenerationConfig(**kept)


def _compute_gelu_in_one_kernel(network: PreTrainedModel) -> None:
    """Let torch compute the GELU of GPT-2 and its like in one pass; transformers writes it out in eight operations.

    The function is the same but for rounding, and each operation would read and write the widest tensor of a layer.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, GELUTanh())


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # the first line of a validation error only names the validator
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else ""
    return f"{type(error).__name__} {told}".strip() if isinstance(error, KeyError) or not told else told


def _unloadable(what: str, name: str, error: Exception) -> BenchError:
    if (broken := _broken_file(what, name, error)) is not None:
        return BenchError(f"{name}: no {what} can be loaded: {broken}")
    reason = _reason(error)
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


def new_network(architecture: dict[str, Any], tokenizer: TokenizerAdapter, *seed: int | str) -> PreTrainedModel:
    """A model with random weights that depend on the seed only.

    Args:
        architecture: `model_type` and the fields of its transformers configuration.
        tokenizer: gives vocabulary size, special ids and the kind of model.
        seed: parts of the seed.

    Raises:
        BenchError: the architecture is none transformers knows, or of the other kind.
    """
    kind = tokenizer.kind
    config = new_architecture(architecture, kind, tokenizer)
    seed_torch(*seed)
    try:
        model: PreTrainedModel = _AUTO[kind].from_config(config, dtype=torch.float32)
    except Exception as error:  # each family has its own way of refusing
        raise _unmakeable(kind, architecture, error) from error
    _mend_generation_config(model)
    _compute_gelu_in_one_kernel(model)
    return model


def new_architecture(architecture: dict[str, Any], kind: Kind, tokenizer: TokenizerAdapter | None) -> PretrainedConfig:
    """The configuration of a model that will be made.

    Args:
        architecture: `model_type` and the fields of its transformers configuration.
        kind: of model.
        tokenizer: gives vocabulary size and special ids; None where it has yet to be trained.

    Raises:
        BenchError: it is none that transformers knows, or has a field that its family lacks.
    """
    given: dict[str, Any] = {}
    if tokenizer is not None:
        given = {
            "vocab_size": tokenizer.size,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
            "bos_token_id": tokenizer.backend.bos_token_id,
            "decoder_start_token_id": tokenizer.pad_id if kind == "seq2seq" else None,
        }
    given |= architecture
    try:
        config: PretrainedConfig = AutoConfig.for_model(given.pop("model_type"), **given)
    except Exception as error:
        raise _unmakeable(kind, architecture, error) from error
    _check_fields(architecture, config)
    return _as_used_here(config)


def _check_fields(architecture: Mapping[str, Any], config: PretrainedConfig) -> None:
    """Refuse what transformers would keep without a use: a misspelt field leaves the family's default, often large."""
    own = getattr(config, "__dataclass_fields__", None)  # of transformers 5
    if own is None or config.has_no_defaults_at_init:
        return
    usual = type(config)()
    known = set(own) | set(config.attribute_map)
    for name in architecture:
        kept = name in vars(config)  # older names, as rope_theta, are taken by the family and not kept
        unknown = kept and name not in known and not hasattr(usual, name) and not name.endswith("_token_id")
        # files on the hub have fields of other families; only what is nearly one of this family's is a slip
        if unknown and difflib.get_close_matches(name, known, cutoff=0.85):
            raise BenchError(f"models: {config.model_type} has no field {name!r}; {did_you_mean(name, known)}")


def check_makeable(
    architecture: dict[str, Any], config: PretrainedConfig, kind: Kind, *, by_generate: bool
) -> PreTrainedModel:
    """Make a model once and let it read two tokens, and write two if it does so by transformers' `generate`.

    What its family refuses only then is refused before any work.

    Returns:
        the model, with random weights.

    Raises:
        BenchError: it cannot be made, read or write, sees what comes after a token, or has weights without a number.
    """
    try:
        network: PreTrainedModel = _AUTO[kind].from_config(config, dtype=torch.float32)
        empty = [name for name, weight in network.named_parameters() if weight.numel() == 0]
        if empty:
            raise ValueError(f"{_some(empty)} would hold no number")
        _check_reads_forward(network, kind)
        if by_generate:
            start = 0 if kind == "seq2seq" else None
            greedy = GenerationConfig(max_new_tokens=2, min_new_tokens=2, pad_token_id=0, decoder_start_token_id=start)
            network.generate(torch.ones((1, 2), dtype=torch.long), generation_config=greedy)
    except Exception as error:
        raise _unmakeable(kind, architecture, error) from error
    return network


def _check_reads_forward(network: PreTrainedModel, kind: Kind) -> None:
    """Refuse a network whose tokens see those after them, as a BERT without is_decoder: it would read the answer."""
    ids = torch.tensor([[0, 0], [0, 1]])
    inputs = {"input_ids": ids} if kind == "causal" else {"input_ids": ids * 0, "decoder_input_ids": ids}
    with torch.no_grad():
        one, other = network.eval()(**inputs, use_cache=False).logits[:, 0].float()
    if not torch.allclose(one, other, rtol=1e-2, atol=1e-4, equal_nan=True):
        raise ValueError("its tokens see those that come after them (an encoder needs is_decoder: true)")


def _unmakeable(kind: Kind, architecture: dict[str, Any], error: Exception) -> BenchError:
    return BenchError(f"models: cannot make a {kind} model from {architecture}: {_reason(error)}")


def outline(
    name: str, config: PretrainedConfig, kind: Kind, device: str = "meta", dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """A model's network without memory for its weights; on another device than `meta` with random ones.

    Raises:
        BenchError: transformers cannot make it.
    """
    try:
        with torch.device(device):
            network: PreTrainedModel = _AUTO[kind].from_config(config, **({} if dtype is None else {"dtype": dtype}))
    except Exception as error:
        raise BenchError(f"{name}: transformers makes no {kind} model of its config.json: {_reason(error)}") from error
    return network


def token_tables(network: PreTrainedModel, kind: Kind) -> int:
    """How many ids a network can read: the rows of its smallest embedding table."""
    parts = [network] if kind == "causal" else [network.get_encoder(), network.get_decoder()]
    return min(int(part.get_input_embeddings().num_embeddings) for part in parts)


def positions(config: PretrainedConfig, part: str = "") -> int | None:
    """How many positions a model has, or its encoder or decoder (`part`); None where there is no limit."""
    config = getattr(config, part, config) if part else config.get_text_config()
    names = (f"max_{part}_position_embeddings", "max_position_embeddings", "max_seq_len")
    found = (getattr(config, name, None) for name in names)
    return next((limit for limit in found if limit is not None), None)


def decoder_start(config: PretrainedConfig, generation: GenerationConfig | None) -> int | None:
    """What an encoder-decoder's decoder starts from; None where nothing says so."""
    for given in (config, generation):
        start: int | None = getattr(given, "decoder_start_token_id", None)
        if start is not None:
            return start
    pad: int | None = config.pad_token_id
    return pad


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
        raise BenchError(f"{path}: transformers refuses these settings: {_reason(error)}") from error
    for name in _SPECIAL_IDS:
        value = getattr(settings, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and type(one) is not int:
                raise BenchError(f"{path}: {name} has to be a whole number, got {one!r}")
    return settings


def hub_commit(name: str) -> str:
    """Commit of a hub repository as transformers found it.

    Raises:
        BenchError: it cannot be had.
    """
    return str(load_architecture(name)._commit_hash)


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
    """Keep progress bars and advice of the libraries out of the display."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("transformers", "datasets", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
