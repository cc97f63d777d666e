"""What the jobs of a sweep say together, from their files alone: no model, no forward pass.

An analysis that can put jobs together defines a function `across` (`olmo_stages.types.Across`) in
its module. What it returns is a result like any other, in SWEEP/across/ANALYSIS.DATA. It is made
anew only where the jobs, their numbers or the code are others than before.
"""

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import olmo_stages
from olmo_stages.atomic import safe_name
from olmo_stages.errors import ConfigError, OlmoStagesError, StoreError
from olmo_stages.models.compute import FULL_PRECISION, of_quantised
from olmo_stages.records import Status, Times, is_finished, now, provenance, read, read_mark, write
from olmo_stages.report.kept import Done
from olmo_stages.report.pool import Group, pool
from olmo_stages.report.spoken import Spoken, code_of, is_known, module_of, of_module
from olmo_stages.types import Finished, Result

FOLDER = "across"
"""Name of the folder in a sweep's folder."""

_MARK = "result.json"
# Rooms that no analysis imports, so that a change in them changes no assembled number or figure.
_SHOWS = frozenset({"report", "tracking"})
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Assembled:
    """What came of a group of jobs.

    Args:
        group: the jobs.
        folder: of the result; None where there is none.
        warnings: why there is none, or what is left out of it, one line each.
        is_current: whether the code is still that which made it, as far as this process knows it.
    """

    group: Group
    folder: Path | None
    warnings: tuple[str, ...] = ()
    is_current: bool = True


def assemble(sweep_dir: Path, statuses: Sequence[Status]) -> list[Path]:
    """Put the finished jobs of a sweep together, and write what comes of it.

    Jobs of the same analysis, data, options, seed and size make a group. What an earlier run of the
    sweep assembled is replaced or, where it is about other jobs, removed. Whatever a user can mend
    is one warning and costs no other group.

    Args:
        sweep_dir: folder of the sweep.
        statuses: its jobs; those that are neither done nor cached are left out.

    Returns:
        The folders of the assembled results, for `records.read`.
    """
    jobs = pool({sweep_dir: statuses})
    damaged = [it.damaged for it in jobs.undone if it.damaged]
    for text in damaged:
        _logger.warning("%s; left out of what is assembled", text)
    found = together(jobs.groups, sweep_dir / FOLDER)
    for text in (mixture(jobs.groups), *(text for it in found for text in it.warnings)):
        if text:
            _logger.warning("%s", text)
    made = [it.folder for it in found if it.folder is not None]
    if not damaged:  # what cannot be read may be what an older result is about
        _remove_stale(sweep_dir / FOLDER, [*made, *_foreign(found, sweep_dir / FOLDER)])
    return made


def together(
    groups: Sequence[Group], root: Path, elsewhere: Sequence[Path] = ()
) -> list[Assembled]:
    """Put the jobs of each group together, unless that has been done.

    Args:
        groups: jobs that belong together.
        root: folder in which new results are written.
        elsewhere: further folders of assembled results, to be used where they are about the very
            same jobs.

    Returns:
        One for each group.
    """
    ready = [folder for place in elsewhere if place.is_dir() for folder in place.iterdir()]
    names = _names(groups)
    return [
        _assembled(group, root / name, ready) for group, name in zip(groups, names, strict=True)
    ]


def mixture(groups: Sequence[Group]) -> str:
    """Say so if groups are quantised and in full precision, which one table shows; else empty."""
    found = sorted({_quantisation(group) for group in groups})
    if len(found) < 2:
        return ""
    return (
        f"the sweep mixes quantisations ({', '.join(found)}): they are assembled apart; compare no "
        "number of one with a number of another"
    )


def _names(groups: Sequence[Group]) -> list[str]:
    plain = [f"{group.key['analysis']}.{group.key['data']}" for group in groups]
    shared = Counter(plain)
    return [
        safe_name(name) + (f".{group.digest[:8]}" if shared[name] > 1 else "")
        for group, name in zip(groups, plain, strict=True)
    ]


def _assembled(group: Group, folder: Path, ready: Sequence[Path]) -> Assembled:
    """The result of a group: one that is there already, or a new one in `folder`."""
    target = group.key["target"]
    about = [it for it in (folder, *ready) if _is_about(it, group)]
    code = _code(target)
    current = [it for it in about if code and read_mark(it)["job"].get("code") == code]
    if current:
        return Assembled(group, current[0])
    module = module_of(target)
    if module is None:
        # Another process, which knows a user's own analysis, may have assembled it.
        return Assembled(group, about[0] if about else None)
    if not hasattr(module, "across"):
        return Assembled(group, None)
    try:
        return _written(group, folder, module)
    except OlmoStagesError as error:
        older = about[0] if about else None
        instead = "" if older is None else f"; {older} was made by another version of the code"
        warning = f"{folder}: not assembled: {error}{instead}"
        return Assembled(group, older, (warning,), is_current=False)


def _written(group: Group, folder: Path, module: ModuleType) -> Assembled:
    """Put a group's jobs together and write what comes of it.

    Raises:
        ConfigError: the jobs do not go together, or the analysis returns something else.
    """
    start = now()
    _check_models(group.jobs)
    whole, warnings = _whole(group)
    result = module.across([Finished(*job.labels, found) for job, found in whole])
    if result is None:
        return Assembled(group, None, warnings)
    if not isinstance(result, Result):
        raise ConfigError(
            f"{module.__name__}.across returned {type(result).__name__}; return a Result or None"
        )
    if (quantised := _quantisation(group)) != FULL_PRECISION:
        result = replace(result, warnings=(of_quantised(quantised), *result.warnings))
    rows = [row for job in group.jobs for row in job.rows] + [*result.measurements]
    spoken = of_module(group.key["target"], rows)
    group_read = replace(group, jobs=tuple(job for job, _ in whole))
    record = _provenance(group_read, spoken, Times(start, now()))
    write(folder, result, record)
    return Assembled(group, folder, warnings)


def _whole(group: Group) -> tuple[list[tuple[Done, Result]], tuple[str, ...]]:
    """The jobs with all that they kept, and what is wrong with the others."""
    whole: list[tuple[Done, Result]] = []
    warnings: list[str] = []
    for job in group.jobs:
        try:
            whole.append((job, read(job.folder).result))
        except StoreError as error:
            warnings.append(f"{error}; left out of what is assembled")
    return whole, tuple(warnings)


def _quantisation(group: Group) -> str:
    return group.key["pass"].get("quantisation", FULL_PRECISION)


def _check_models(jobs: Sequence[Done]) -> None:
    """Refuse jobs in which one label stands for several models, or that are about the same pair.

    Raises:
        ConfigError: they would be taken for one another.
    """
    known: dict[str, str] = {}
    for job in jobs:
        for label, model in job.models().items():
            if known.setdefault(label, model) != model:
                raise ConfigError(
                    f"{label} stands for two models in this sweep; name them with model.name=NAME"
                )
    pairs = Counter(job.labels for job in jobs)
    for (stage, reference), count in pairs.items():
        if count > 1:
            raise ConfigError(
                f"{count} jobs compare {stage} with {reference or 'nothing'}; sweep them apart"
            )


def _provenance(group: Group, spoken: Spoken, times: Times) -> dict[str, Any]:
    models = [job.provenance["model_digests"] for job in group.jobs]
    return provenance(
        job={
            "across": dict(group.key),
            "jobs": [job.summary() for job in group.jobs],
            "code": _code(group.key["target"]),
            "spoken": spoken.record(),
        },
        config={},
        times=times,
        seed=group.key["seed"],
        data_digest=group.key["data_digest"],
        model_digests={label: digest for each in models for label, digest in each.items()},
    )


def _is_about(folder: Path, group: Group) -> bool:
    """Whether an assembled result is there that is about these very results."""
    if not is_finished(folder):
        return False
    job = read_mark(folder).get("job")
    return isinstance(job, dict) and job.get("jobs") == [it.summary() for it in group.jobs]


def _foreign(found: Sequence[Assembled], root: Path) -> list[Path]:
    """Where what a user's own analysis assembled is, or would be."""
    groups = [it.group for it in found]
    pairs = zip(groups, _names(groups), strict=True)
    return [root / name for group, name in pairs if not is_known(group.key["target"])]


@cache
def _package() -> str:
    """Digest of the code of this package that assembled results may depend on."""
    root = Path(olmo_stages.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root)
        if inner.parts[0] not in _SHOWS:
            digest.update(f"{inner.as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _code(target: str) -> str:
    """Identity of the code that puts jobs together; empty where it cannot be known."""
    path = code_of(target)
    try:
        own = b"" if path is None else path.read_bytes()
    except OSError:  # imported from an archive, gone since
        return ""
    return hashlib.sha256(_package().encode() + own).hexdigest() if own else ""


def _remove_stale(root: Path, current: Sequence[Path]) -> None:
    """Remove assembled results of jobs that the sweep no longer has; other files stay."""
    if not root.is_dir():
        return
    for folder in sorted(set(root.iterdir()) - set(current)):
        try:
            files: Mapping[str, Any] = read_mark(folder)["files"]
            (folder / _MARK).unlink()  # first, so that a half-removed one counts as none
            for name in files:
                (folder / name).unlink(missing_ok=True)
        except (OSError, KeyError, TypeError):  # not ours, or not ours to write
            continue
        for emptied in (folder / "figures", folder, root):
            with contextlib.suppress(OSError):  # it holds something else
                emptied.rmdir()
