"""The Hugging Face hub: ids with a revision, and what it means when something cannot be had from there."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from bench.system.errors import nearest

if TYPE_CHECKING:
    import httpx

_LOG_IN = "log in with `hf auth login`, or give a token in the variable HF_TOKEN"


def split_revision(name: str) -> tuple[str, str | None]:
    """Id and revision of OWNER/NAME@REVISION; a local folder is taken whole, whatever its name."""
    if "@" not in name or Path(name).is_dir():
        return name, None
    repository, _, revision = name.partition("@")
    return repository, revision or None


COMMITS: dict[str, str] = {}
"""Commits by name: those of models as this process saw them first, so that a branch that moves changes no run under
way, and those of a record that is made again. Data sets stand under `data_set` of their names."""


def data_set(name: str) -> str:
    """A data set's key in `COMMITS`."""
    return f"datasets/{name}"


def place(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds a model: folder or id, and the revision, which is the commit once that is known."""
    repository, revision = split_revision(name)
    revision = COMMITS.get(name, revision)
    return repository, {} if revision is None else {"revision": revision}


def tell_soon_if_unreachable() -> None:
    """Let requests to a hub that cannot be reached fail within seconds.

    huggingface_hub makes each of them again for 23 s, which a computer without a network waits several times even for
    what it has downloaded before. Here the hub itself is asked first; only once it has answered are requests repeated.
    """
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["request"]
    if _check_reached not in hooks:
        hooks.append(_check_reached)


_HUB_ANSWERED: set[str] = set()  # its address
_NO_ANSWER: dict[str, tuple[float, Exception]] = {}  # by address: when, and what was raised
_ONE_ASKS = Lock()
_OURS = "distillm-bench asks whether the hub is there"  # marks the request that is let through
_WAITS = (1.0, 2.0)  # seconds before it is asked again
_PATIENCE = 5.0  # seconds for an answer
_TRUSTED_FOR = 60.0  # seconds after which a failure is forgotten


def _check_reached(request: httpx.Request) -> None:
    """Raise what offline mode raises, of which every library knows that files downloaded before may do."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    hub = constants.ENDPOINT
    if _OURS in request.extensions or not str(request.url).startswith(str(httpx.URL(hub)).rstrip("/")):
        return
    with _ONE_ASKS:
        if hub in _HUB_ANSWERED:
            return
        when, failed = _NO_ANSWER.get(hub, (0.0, None))
        if failed is None or time.monotonic() - when > _TRUSTED_FOR:
            failed = _failure_to_reach(hub)
            if failed is None:
                _HUB_ANSWERED.add(hub)
                return
            _NO_ANSWER[hub] = time.monotonic(), failed
    raise OfflineModeIsEnabled(f"{hub} cannot be reached") from failed


def _failure_to_reach(hub: str) -> Exception | None:
    """What keeps every one of three connections from being made; None where one is, whatever comes of it."""
    import httpx
    from huggingface_hub import get_session

    failed: Exception | None = None
    for wait in (0.0, *_WAITS):
        time.sleep(wait)
        try:
            get_session().head(hub, timeout=_PATIENCE, follow_redirects=False, extensions={_OURS: True})
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failed = error
        except httpx.TransportError:  # slow, or of few words: huggingface_hub knows better what to make of it
            return None
        else:
            return None
    return failed


def reason_of_failure(error: BaseException) -> BaseException:
    """What a request failed for, behind what `tell_soon_if_unreachable` raises of it."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    told = (one for one in behind(error) if not isinstance(one, OfflineModeIsEnabled))
    return next(told, error)


def what_failed(what: str, name: str, error: BaseException, known: Iterable[str] = ()) -> str | None:
    """What kept a repository from being loaded and what to do, as the rest of a sentence that begins with its name.

    Args:
        what: "model", "adapter", "tokenizer" or "data set".
        name: its id, with the revision if one was asked for.
        error: as raised; the libraries hide the reason behind others.
        known: ids that may have been meant.

    Returns:
        None where the reason is none of the hub's, nor a failed import.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, revision = split_revision(name)
    revision = COMMITS.get(data_set(name) if what == "data set" else name, revision)
    url = f"{constants.ENDPOINT}/{'datasets/' if what == 'data set' else ''}{repository}"
    for one in behind(error):
        match one:
            case ImportError():
                return _not_imported(one)
            case GatedRepoError():
                return f"is gated: accept its terms at {url}, then {_LOG_IN}"
            case RepositoryNotFoundError():
                return f"is not on the hub ({url}){_meant(repository, known)}; if it is private, {_LOG_IN}"
            case RevisionNotFoundError():
                return f"has no revision {revision or 'main'!r}; {url}/commits/main lists what there is"
            case RemoteEntryNotFoundError():
                return f"lacks the file {one.response.url.path.rpartition('/')[2]}, see {url}/tree/{revision or 'main'}"
            case HFValidationError():
                return "is neither a local folder nor an id of the hub, which is OWNER/NAME or OWNER/NAME@REVISION"
            case LocalEntryNotFoundError() | OfflineModeIsEnabled() | ConnectionError() if constants.is_offline_mode():
                return "was not downloaded before (or not all of it), and HF_HUB_OFFLINE=1 forbids it now"
            case OfflineModeIsEnabled() if one.__cause__ is not None:
                continue  # of `tell_soon_if_unreachable`, whose cause tells more
            case IncompleteSnapshotError():
                return (
                    f"was downloaded in part only, and {constants.ENDPOINT} cannot be reached now; the same command "
                    "goes on once it can"
                )
            case HfHubHTTPError():
                return _refused(one.response.status_code, url)
            case _ if _broke_off(one):
                return "was downloaded in part only: the connection broke off; the same command goes on from there"
            case _ if _unreachable(one):
                return (
                    f"was not downloaded before (or not all of it), and {constants.ENDPOINT} cannot be reached now "
                    f"({type(one).__name__}: {str(one) or 'no answer'})"
                )
    return None


def behind(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _not_imported(error: ImportError) -> str:
    package = missing_package(error)
    if package is not None:
        return f"needs the package {package}, which is not installed: pip install {package}"
    told = str(error).strip().partition("\n")[0]
    return f"cannot be loaded with the packages that are installed here: {told or type(error).__name__}"


def missing_package(error: ImportError) -> str | None:
    """The package to install; None where the error names no module, or one that is there.

    What lacks SentencePiece goes on to tiktoken, and complains of that.
    """
    for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf")):
        try:
            importlib.import_module(module)
        except ImportError:
            return package
    module = (error.name or "").partition(".")[0]
    return module if module and importlib.util.find_spec(module) is None else None


def _meant(name: str, known: Iterable[str]) -> str:
    near = nearest(name, set(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _refused(status: int, url: str) -> str:
    if status in (401, 403):
        return f"is refused by the hub ({status}): {_LOG_IN}, and see {url}"
    if status == 429:
        return f"is refused by the hub for now ({status}: too many requests): wait some minutes, or {_LOG_IN}"
    return f"is not sent by the hub, which answers with an error of its own ({status}); try again later, or see {url}"


def _broke_off(error: BaseException) -> bool:
    said = str(error)
    # of a hub that was reached: it closed the connection, which may also be seen as a reset of it or, by the next
    # request on the same connection, as no answer at all
    return (
        isinstance(
            error, (ConnectionResetError, *errors_of_httpx("ReadError"), *errors_of_httpx("RemoteProtocolError"))
        )
        or "Consistency check failed" in said
        or re.search(r"without sending complete|incomplete (chunked )?read", said, re.I) is not None
    )


def _unreachable(error: BaseException) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError, *errors_of_httpx("TransportError")))


def errors_of_httpx(name: str) -> tuple[type[Exception], ...]:
    """A kind of errors of what huggingface_hub sends requests with; empty where it was not imported.

    To import it where an error is told could fail, and hide that error.
    """
    httpx = sys.modules.get("httpx")
    return () if httpx is None else (getattr(httpx, name),)
