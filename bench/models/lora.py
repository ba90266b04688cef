"""LoRA by peft: low-rank adapters that are trained while the network they sit in stays as it is (arXiv:2106.09685).

The adapters are put into the network itself, which remains the transformers model that everything else knows. peft is
imported where it is needed: it takes seconds.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RemoteEntryNotFoundError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.hub import extract_commit_hash

from bench.config.sections import LoraConfig
from bench.models.tokenizer import Kind
from bench.system.errors import BenchError
from bench.system.files import lfs_pointer, read_json
from bench.system.hub import COMMITS, place, split_revision, what_failed
from bench.system.seeding import seed_torch

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLora
    from peft import PeftModel

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_ONLY = "default"  # what peft calls an adapter that is given no name


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter in a folder or on the hub.

    Attributes:
        base: the model that it belongs to: a folder or a hub id.
        commit: of its hub repository; None for a folder.
    """

    base: str
    commit: str | None


def find_adapter(name: str) -> SavedAdapter | None:
    """What an adapter is that a name stands for; None where it stands for a whole model, or nothing can be found.

    Raises:
        BenchError: it does not say which model it belongs to.
    """
    if Path(name).is_dir():
        return _saved(name, Path(name) / SETTINGS) if (Path(name) / SETTINGS).is_file() else None
    repository, at = place(name)
    asked = repository, at.get("revision")
    if asked not in _OF_HUB:
        path: str | None = None
        try:
            path = hf_hub_download(repository, SETTINGS, revision=asked[1])
        except RemoteEntryNotFoundError:
            pass  # a whole model
        except Exception:  # a repository that cannot be had is told where the model is loaded
            return None
        _OF_HUB[asked] = None if path is None else _saved(name, Path(path))
    found = _OF_HUB[asked]
    if found is not None and found.commit is not None:
        COMMITS[name] = found.commit
    return found


_OF_HUB: dict[tuple[str, str | None], SavedAdapter | None] = {}
"""What is known of repositories of the hub at a revision, each of which is asked about once."""


def _saved(name: str, path: Path) -> SavedAdapter:
    """The adapter that a name stands for, with its settings in a file."""
    if (Path(name) / "config.json").is_file():
        raise BenchError(f"{name} holds a whole model and an adapter ({SETTINGS}): move one of them to another folder")
    settings = read_json(path)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BenchError(f"{name}: {SETTINGS} names no base model: set base_model_name_or_path in it")
    at = f"@{settings['revision']}" if settings.get("revision") and not Path(base).is_dir() else ""
    return SavedAdapter(base + at, None if Path(name).is_dir() else extract_commit_hash(str(path), None))


def base_of(name: str) -> str:
    """The model whose weights are loaded for a name: an adapter's base, or the model itself."""
    found = find_adapter(name)
    return name if found is None else found.base


def add_adapter(network: PreTrainedModel, lora: LoraConfig, base: str, kind: Kind, *seed: int | str) -> PeftModel:
    """Put new adapters, which change nothing yet, into a network and freeze everything else.

    Args:
        network: changed in place.
        lora: rank, scale, dropout and the layers.
        base: where the network came from; saved with the adapters.
        kind: of model.
        seed: parts of the seed of their random half.

    Raises:
        BenchError: no layer has one of the names in `lora.targets`, a layer is of a kind that cannot have adapters,
            or nothing is known of the family.
    """
    from peft import get_peft_model

    _check_names(network, lora, base)
    seed_torch(*seed)
    try:
        with warnings.catch_warnings():
            # peft looks at the model's own name, and remarks on a second model of the pair
            warnings.simplefilter("ignore")
            adapted = get_peft_model(network, _settings(network, lora, kind))
    except ValueError as error:
        told = str(error).partition("\n")[0]
        raise BenchError(
            f"models.lora: {base}: {told}\nIts layers: {_layers(network)}: choose some with "
            "--set models.lora.targets=[NAME, ...]"
        ) from error
    _check_embeddings(network, base)
    repository, revision = split_revision(base)
    given = adapted.peft_config[_ONLY]
    given.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else repository
    given.revision = revision
    return adapted


def _settings(network: PreTrainedModel, lora: LoraConfig, kind: Kind) -> PeftLora:
    from peft import LoraConfig as PeftLora
    from peft import TaskType

    return PeftLora(
        task_type=TaskType.CAUSAL_LM if kind == "causal" else TaskType.SEQ_2_SEQ_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),  # GPT-2
    )


def _check_names(network: PreTrainedModel, lora: LoraConfig, base: str) -> None:
    """Refuse a target that is no layer's name: peft passes over one beside others that are."""
    paths = [f".{path}" for path, _ in network.named_modules()]
    for target in lora.targets if isinstance(lora.targets, list) else ():
        if not any(path.endswith(f".{target}") for path in paths):
            raise BenchError(
                f"models.lora.targets: no layer of {base} is named {target!r}; its layers: {_layers(network)}"
            )


def _check_embeddings(network: PreTrainedModel, base: str) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in (network.get_output_embeddings(), network.get_input_embeddings()):
        if isinstance(layer, BaseTunerLayer):
            raise BenchError(
                f"models.lora.targets: {base}: an adapter cannot sit in the embeddings or the output layer here; name "
                f"other layers: {_layers(network)}"
            )


def _layers(network: PreTrainedModel) -> str:
    """Names of the layers that can have adapters, each once."""
    outside = (network.get_output_embeddings(), network.get_input_embeddings())
    found = {
        path.rpartition(".")[2]: None
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module not in outside
    }
    return ", ".join(found)


def load_adapter(network: PreTrainedModel, name: str, *, trainable: bool) -> PeftModel:
    """Put a saved adapter into the network it belongs to, in place.

    Raises:
        BenchError: it cannot be had, or is not this network's.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    folder = _folder(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(network, folder, is_trainable=trainable, torch_device="cpu")
            given = load_peft_weights(folder, device="cpu")
            has = get_peft_model_state_dict(adapted, save_embedding_layers=False)
            has |= {name: given[name] for name in given if _embeds(name)}
    except Exception as error:  # peft and torch raise many kinds for the same cause
        if (pointer := lfs_pointer(Path(folder).glob("adapter_model.*"))) is not None:
            raise BenchError(f"the adapter {name}: {pointer} is only a pointer of Git LFS to the file") from error
        lines = str(error).splitlines() or [type(error).__name__]
        raise BenchError(f"the adapter {name} does not fit its base model: {' '.join(lines[:2])}") from error
    if odd := given.keys() ^ has.keys():
        raise BenchError(f"the adapter {name} does not fit its base model: {min(odd)} is only in one of them")
    return adapted


def _embeds(name: str) -> bool:
    """Whether a tensor is an embedding or output layer, which peft saves beside an adapter where a vocabulary grew."""
    return "lora_" not in name and any(part in name for part in ("embed", "lm_head", "wte", "shared"))


def _folder(name: str) -> str:
    """Where the files of an adapter are; peft itself would ask the hub for each of them every time.

    Raises:
        BenchError: they cannot be had.
    """
    if Path(name).is_dir():
        return name
    repository, at = place(name)
    try:
        try:
            return str(Path(hf_hub_download(repository, WEIGHTS, revision=at.get("revision"))).parent)
        except EntryNotFoundError:  # of older versions of peft, or not on this machine and out of reach
            return str(Path(hf_hub_download(repository, "adapter_model.bin", revision=at.get("revision"))).parent)
    except Exception as error:  # network, access, half a download: one way out
        told = what_failed("adapter", name, error) or f"cannot be had: {type(error).__name__}: {error}"
        raise BenchError(f"the adapter {name!r} is no local folder, and {told}") from error


def merged(adapted: PeftModel) -> PreTrainedModel:
    """The network with its adapters added to its weights, W + alpha / r x B A: a plain one again.

    Raises:
        BenchError: adapters of a kind that is no change of weights.
    """
    merge = getattr(adapted, "merge_and_unload", None)
    if merge is None:
        kind = adapted.active_peft_config.peft_type
        raise BenchError(f"an adapter of the kind {kind} is no change of weights, and cannot be used here")
    network: PreTrainedModel = merge()
    return network


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write the adapters alone, as peft and transformers load them; their base is named, not copied."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    given = adapted.peft_config[_ONLY]
    targets = given.target_modules if isinstance(given.target_modules, str) else sorted(given.target_modules)
    # peft keeps names in a set, whose order would change from process to process
    replace(given, target_modules=targets, inference_mode=True).save_pretrained(str(folder))
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS, {"format": "pt"})
