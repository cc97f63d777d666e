"""The branches of a hub repository, and the commit that a revision stands for.

A branch may move: between two jobs of a sweep `main` could become another model. So a revision is
resolved to its commit once a process, the commit is what is downloaded, and it is what identifies
the weights.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from olmo_stages.atomic import write_file
from olmo_stages.errors import ConfigError, ModelError, StoreError
from olmo_stages.looking import is_looking, make
from olmo_stages.revisions import names
from olmo_stages.stages import release, releases
from olmo_stages.types import Stage

PATIENCE = 10.0
"""Seconds that the hub has to answer."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REFUSED = 500  # and above: the hub's own trouble, not an answer
_BUSY = (408, 429)
_logger = logging.getLogger(__name__)
_pinned: dict[tuple[str, str], str] = {}


class NotInReach(ModelError):
    """The hub does not answer: no connection, offline mode, or trouble of its own."""


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit id, which never moves."""
    return _COMMIT.fullmatch(revision) is not None


def branches(source: str, patience: float = PATIENCE) -> dict[str, str]:
    """List the branches of a repository, in one answer of the hub, with their commits.

    Args:
        source: hub repo id.
        patience: seconds to wait.

    Raises:
        NotInReach: the hub does not answer.
        ModelError: it knows no such repository, or shows it only after a login.
    """

    def ask() -> dict[str, str]:
        from huggingface_hub import HfApi

        return {it.name: it.target_commit for it in HfApi().list_repo_refs(source).branches}

    return _ask(ask, source, patience)


def cached(source: str) -> dict[str, str]:
    """The revisions of a repository in this machine's hub cache, with their commits."""
    folder = _cache_folder(source)
    found: dict[str, str] = {}
    for path in sorted((folder / "refs").rglob("*")):
        commit = read_ref(path)
        if commit is not None and (folder / "snapshots" / commit).is_dir():
            found[path.relative_to(folder / "refs").as_posix()] = commit
    return found


def pin(stage: Stage, patience: float = PATIENCE) -> str | None:
    """Resolve a stage's revision to a commit, once a process.

    Args:
        stage: its source is a hub repo id.
        patience: seconds that the hub has to answer.

    Returns:
        The commit. While the hub is not in reach, the commit that the cache remembers, and a line
        in the log says so; None if it remembers none.

    Raises:
        ModelError: the hub knows no such repository or revision; names the spelling of the
            revisions and the nearest ones.
    """
    if is_commit(stage.revision):
        return stage.revision
    key = (stage.source.casefold(), stage.revision)
    if key in _pinned:
        return _pinned[key]
    if is_looking():  # as it was when last downloaded; nobody is asked
        return read_ref(_cache_folder(stage.source) / "refs" / stage.revision)
    try:
        commit = _resolve(stage, patience)
    except NotInReach as error:
        commit = read_ref(_cache_folder(stage.source) / "refs" / stage.revision)
        if commit is None:
            return None
        _logger.warning(
            "%s; %s at %s is commit %s, as it was when last downloaded",
            error,
            stage.source,
            stage.revision,
            commit[:12],
        )
    else:
        _remember(stage, commit)
    return _pinned.setdefault(key, commit)


def has_file(source: str, commit: str | None, name: str, patience: float = PATIENCE) -> bool:
    """Whether a repository holds a file; False where the hub is not in reach.

    Args:
        source: hub repo id.
        commit: of it; None = main.
        name: of the file.
        patience: seconds that the hub has to answer.

    Raises:
        ModelError: it knows no such repository, or shows it only after a login.
    """

    def ask() -> bool:
        from huggingface_hub import HfApi

        return HfApi().file_exists(source, name, revision=commit)

    try:
        return _ask(ask, source, patience)
    except NotInReach:
        return False


def is_misspelt(stage: Stage) -> bool:
    """Whether a revision is none that is known of a released stage, without asking the hub."""
    spelt = _spellings(stage)
    if spelt is None or stage.revision == names.MAIN or is_commit(stage.revision):
        return False
    return not any(names.spelling(it).holds(stage.revision) for it in spelt)


def unknown_revision(stage: Stage, known: Mapping[str, str] | None = None) -> str:
    """What to say of a revision that does not exist.

    Args:
        stage: the stage at that revision.
        known: the branches there are; None = not to be had.
    """
    spelt = _spellings(stage)
    spellings = [names.spelling(text) for text in spelt or ()]
    said = f"stage {stage.name}: {stage.source} has no revision {stage.revision}"
    if spelt is not None:
        said += f"; there are {', '.join([*map(str, spellings), names.MAIN])}"
    near = names.nearest(stage.revision, known, spellings)
    if near:
        said += f"; nearest: {', '.join(near)}"
    if stage.size == "custom":
        return f"{said}; choose with model.revision=..."
    return f"{said}; list them with: olmo-stages revisions {stage.name} --size {stage.size}"


def _resolve(stage: Stage, patience: float) -> str:
    """The commit, from the hub.

    Raises:
        NotInReach: the hub does not answer.
        ModelError: it knows no such repository or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    def ask() -> str | None:
        return HfApi().model_info(stage.source, revision=stage.revision, timeout=patience).sha

    try:
        commit = _ask(ask, stage.source, patience)
    except RevisionNotFoundError as error:
        try:
            known = branches(stage.source, patience)
        except ModelError:
            known = None
        raise ModelError(unknown_revision(stage, known)) from error
    if commit is None or not is_commit(commit):
        raise ModelError(
            f"stage {stage.label}: the hub gives no commit for {stage.source} at "
            f"{stage.revision}; give the commit itself with model.revision=COMMIT"
        )
    return commit


def _ask(ask: Callable[[], Any], source: str, patience: float) -> Any:  # noqa: ANN401
    """What the hub answers.

    Raises:
        NotInReach: it does not answer.
        ModelError: it knows no such repository, or shows it only after a login.
        RevisionNotFoundError: the hub's own error, for a revision that it does not know.
    """
    from huggingface_hub.errors import (
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    make(f"what the hub knows of {source}")
    # The base of all errors of the connection, whichever library the hub's client is made with.
    http_error: Any = HfHubHTTPError.__bases__[0]
    try:
        return _within(patience, ask)
    except RevisionNotFoundError:
        raise
    except RepositoryNotFoundError as error:
        raise ModelError(_unknown_repository(source)) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status >= _REFUSED or status in _BUSY:
            raise NotInReach(f"the hub is in trouble (status {status})") from error
        raise ModelError(
            f"{source}: the hub refuses (status {status}); log in (hf auth login), accept the "
            "model's terms on its page, or give a local directory"
        ) from error
    except (OSError, http_error) as error:
        raise NotInReach(f"the hub is not in reach ({type(error).__name__})") from error


def _within(patience: float, ask: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Run a question in a thread: looking up a name, and listing branches, have no time limit.

    Raises:
        TimeoutError: there is no answer within `patience` seconds.
    """
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001  (raised again by the one who waits)
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer.result(timeout=patience)


def _unknown_repository(source: str) -> str:
    ids = {it.source.casefold(): it.source for it in releases()}
    near = get_close_matches(source.casefold(), ids, n=1)
    hint = f" (did you mean {ids[near[0]]}?)" if near and near[0] != source.casefold() else ""
    return (
        f"{source} does not exist on the hub, or needs a login (hf auth login); check the id, or "
        f"give a local directory{hint}"
    )


def _spellings(stage: Stage) -> tuple[str, ...] | None:
    try:
        told = release(stage.name, stage.size)
    except ConfigError:
        return None  # a checkpoint of the user's own
    return told.branches if told.source == stage.source else None


def _cache_folder(source: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"


def read_ref(path: Path) -> str | None:
    """The commit in a file of the hub cache's folder `refs`; None if there is none."""
    try:
        commit = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def _remember(stage: Stage, commit: str) -> None:
    # The hub's library notes a branch only when it is asked for a branch, and it is asked for the
    # commit; without the note nothing is found offline.
    path = _cache_folder(stage.source) / "refs" / stage.revision
    try:
        if read_ref(path) != commit:
            write_file(path, commit.encode())
    except StoreError as error:
        _logger.debug("%s", error)
