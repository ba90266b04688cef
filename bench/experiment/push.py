"""`bench run --push-to-hub`: a run's student, its record and a model card, as one commit to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.experiment.run import STUDENT
from bench.record.model_card import model_card, on_hub
from bench.record.record import RunRecord
from bench.record.store import RECORD
from bench.system.artifacts import MANIFEST
from bench.system.errors import BenchError
from bench.system.hub import errors_of_httpx, reason_of_failure

if TYPE_CHECKING:
    from bench.config.sections import ModelsConfig
    from distillm import Method

_WEIGHTS = (".safetensors", ".bin", ".index.json", "adapter_config.json")


def prepare_push(repository: str, models: ModelsConfig) -> None:
    """See to it that there is a repository to push to, before any work; one that is made is private.

    Args:
        repository: OWNER/NAME.
        models: the run's.

    Raises:
        BenchError: it is no id, nobody is logged in, the student would be adapters to a local model, or the hub refuses
            it or cannot be reached.
    """
    from huggingface_hub import HfApi, constants, get_token

    option = f"--push-to-hub {repository}"
    if repository.count("/") != 1:
        raise BenchError(f"{option}: expected OWNER/NAME")
    if models.lora is not None and models.lora.save == "adapter" and not on_hub(models.student):
        raise BenchError(
            f"{option}: the student would be adapters to a model that others do not have ({models.student}): add --set "
            "models.lora.save=merged"
        )
    if constants.HF_HUB_OFFLINE:
        raise BenchError(f"{option}: HF_HUB_OFFLINE=1 forbids it; unset it, or leave out --push-to-hub")
    if get_token() is None:
        raise BenchError(f"{option}: nobody is logged in: hf auth login, or set HF_TOKEN")
    with _told(f"{option}: the repository cannot be made"):
        HfApi().create_repo(repository, private=True, exist_ok=True)


def push(repository: str, record: RunRecord, method: Method, folder: Path) -> str:
    """Push a recorded run; returns the address of the commit.

    Args:
        repository: OWNER/NAME, as `prepare_push` has made it.
        record: of the run.
        method: the run's.
        folder: the run's.

    Raises:
        BenchError: the student is not there, or the hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    files = sorted(path for path in (folder / STUDENT).glob("*") if path.is_file() and path.name != MANIFEST)
    if not files:
        raise BenchError(f"--push-to-hub: {folder / STUDENT} has no student; --fresh makes the run again")
    card = model_card(record, repository, method.paper)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd("README.md", card.encode()),
        CommitOperationAdd(RECORD, folder / RECORD),
        *(CommitOperationAdd(path.name, path) for path in files),
    ]
    message = f"{record.config.method.name} on {record.task}, run {record.run_id}"
    with _told(f"{folder} is recorded, but not pushed to {repository}; the same command tries again"):
        api = HfApi()
        new = {one.path_in_repo for one in operations}
        # weights of another form that an earlier push has left would be loaded in place of these
        old = [name for name in api.list_repo_files(repository) if name.endswith(_WEIGHTS) and name not in new]
        operations += [CommitOperationDelete(name) for name in old]
        return api.create_commit(repository, operations, commit_message=message).commit_url


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # RuntimeError: a large file's upload
        if not isinstance(error, (OSError, RuntimeError, ValueError, *errors_of_httpx("HTTPError"))):
            raise
        reason = reason_of_failure(error)
        raise BenchError(f"{what}: {type(reason).__name__}: {str(reason).strip()}") from error
