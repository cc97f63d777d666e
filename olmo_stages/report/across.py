"""What the jobs of a sweep say together, from their files alone: no model, no forward pass.

An analysis that can put jobs together defines a function `across` (`olmo_stages.types.Across`) in
its module. What it returns is a result like any other, in SWEEP/across/ANALYSIS.DATA.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmo_stages.atomic import safe_name
from olmo_stages.data.responses import OWN
from olmo_stages.errors import ConfigError, OlmoStagesError, StoreError
from olmo_stages.lineage import lineage_order
from olmo_stages.models.compute import FULL_PRECISION, of_quantised
from olmo_stages.records import (
    Recorded,
    Status,
    Times,
    is_finished,
    now,
    provenance,
    read,
    read_mark,
    write,
)
from olmo_stages.records import canonical_json as canonical
from olmo_stages.types import Finished, Result

FOLDER = "across"
"""Name of the folder in a sweep's folder."""

_MARK = "result.json"
_OURS = re.compile(r"olmo_stages\.analyses\.\w+")
# What may differ between the stages of a group. Released stages differ in their chat templates,
# which are part of the tokenizer's files, and early checkpoints in their context, without any
# prompt being another one: prompts are made by this project's own formats.
_OF_A_STAGE = frozenset({"weights", "random_init", "tokenizer", "max_length"})
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    """A finished job, read back."""

    recorded: Recorded

    @property
    def about(self) -> Mapping[str, Any]:
        return self.recorded.provenance["job"]

    @property
    def labels(self) -> tuple[str, str]:
        """Labels of the stage and of the reference, the latter empty where there is none."""
        reference = self.about["reference"]
        return self.about["stage"]["label"], "" if reference is None else reference["label"]

    @property
    def target(self) -> str:
        """Dotted name of the analysis's class, as the configuration gave it."""
        config = self.recorded.provenance["config"]
        analysis = config.get("analysis")
        target = analysis.get("_target_") if isinstance(analysis, Mapping) else None
        return target or f"olmo_stages.analyses.{self.about['analysis']}."

    def key(self) -> dict[str, Any]:
        """What jobs must share to be put together."""
        identity = self.about["identity"]
        passes = identity["activations"]
        sides = [it for it in (self.about["stage"], self.about["reference"]) if it is not None]
        sizes = [it["size"] for it in sides if it["size"] != "custom"]
        return {
            "analysis": self.about["analysis"],
            "target": self.target,
            "data": self.about["data"],
            "data_digest": self.recorded.provenance["data_digest"],
            "size": sizes[0] if sizes else "custom",
            "options": identity["options"],
            "version": identity["version"],
            "seed": identity["seed"],
            "pass": {name: it for name, it in passes.items() if name not in self._differing},
            "responses": identity.get("responses"),
        }

    def models(self) -> dict[str, str]:
        """Identity of the model behind each label."""
        stage, reference = self.labels
        identity = self.about["identity"]
        sides = {stage: (self.about["stage"], identity["activations"])}
        if reference:
            sides[reference] = (self.about["reference"], identity["reference"])
        read = {"data"} if self._reads_own else set()
        return {
            label: canonical([about["size"], {k: it for k, it in passes.items() if k not in read}])
            for label, (about, passes) in sides.items()
        }

    @property
    def _reads_own(self) -> bool:
        """Whether each stage reads what it wrote itself, and so other data than the next one."""
        responses = self.about["identity"].get("responses")
        return responses is not None and responses["mode"] == OWN

    @property
    def _differing(self) -> frozenset[str]:
        return _OF_A_STAGE | {"data"} if self._reads_own else _OF_A_STAGE

    def summary(self) -> dict[str, str]:
        """What the assembled result's record says of the job."""
        stage, reference = self.labels
        return {
            "digest": self.about["digest"],
            "stage": stage,
            "reference": reference,
            "result": self.recorded.digest,
        }


@dataclass(frozen=True, eq=False)
class _Group:
    """Jobs that are seen together, in the order of the lineage."""

    key: Mapping[str, Any]
    jobs: tuple[_Job, ...]
    folder: Path


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
    jobs, unread = _read_jobs(sweep_dir, statuses)
    groups = _groups(jobs, sweep_dir / FOLDER)
    _warn_of_mixture(groups)
    made: list[Path] = []
    for group in groups:
        try:
            made += [group.folder] if _assemble(group) else []
        except OlmoStagesError as error:
            _logger.warning("%s: not assembled: %s", group.folder, error)
            made += [group.folder] if _is_current(group) else []
    if not unread:  # what cannot be read may be what an older result is about
        foreign = [group.folder for group in groups if _module(group.key["target"]) is None]
        _remove_stale(sweep_dir / FOLDER, [*made, *foreign])
    return made


def _read_jobs(sweep_dir: Path, statuses: Sequence[Status]) -> tuple[list[_Job], int]:
    """The finished jobs, each once, and how many could not be read."""
    jobs: dict[str, _Job] = {}
    unread = 0
    for status in statuses:
        if status.state not in {"ok", "cached"} or status.folder is None:
            continue
        try:
            job = _Job(read(_place(sweep_dir, Path(status.folder))))
            job.key()
        except StoreError as error:
            unread += 1
            _logger.warning("%s; left out of what is assembled", error)
        except (KeyError, TypeError):  # a record that no job of this version wrote
            unread += 1
            _logger.warning("%s is the record of another version; left out", status.folder)
        else:
            jobs.setdefault(job.about["digest"], job)
    return list(jobs.values()), unread


def _place(sweep_dir: Path, folder: Path) -> Path:
    """Where a job's result is: as recorded, or beside a sweep that was moved or is seen from afar.

    Recorded paths are relative to where the sweep was launched. A sweep is in OUTPUTS/sweeps, a job
    in OUTPUTS/ANALYSIS/STAGE/DATA.
    """
    beside = sweep_dir.resolve().parent.parent.joinpath(*folder.parts[-3:])
    return beside if not is_finished(folder) and is_finished(beside) else folder


def _groups(jobs: Sequence[_Job], root: Path) -> list[_Group]:
    by_key: dict[str, list[_Job]] = {}
    for job in jobs:
        by_key.setdefault(canonical(job.key()), []).append(job)
    keys = {text: members[0].key() for text, members in by_key.items()}
    names = {text: f"{key['analysis']}.{key['data']}" for text, key in keys.items()}
    shared = Counter(names.values())
    place = lineage_order()
    groups: list[_Group] = []
    for text, members in by_key.items():
        members.sort(key=lambda job: tuple(map(place, job.labels)))
        digest = hashlib.sha256(text.encode()).hexdigest()
        name = safe_name(names[text]) + (f".{digest[:8]}" if shared[names[text]] > 1 else "")
        groups.append(_Group(keys[text], tuple(members), root / name))
    return sorted(groups, key=lambda group: group.folder.name)


def _assemble(group: _Group) -> bool:
    """Write what a group comes to; whether there is a result of it.

    Raises:
        ConfigError: the jobs do not go together, or the analysis returns something else.
    """
    start = now()
    module = _module(group.key["target"])
    across = getattr(module, "across", None)
    if across is None:
        # Another process, which knows a user's own analysis, may have assembled it.
        return module is None and _is_current(group)
    _check_models(group.jobs)
    finished = [Finished(*job.labels, job.recorded.result) for job in group.jobs]
    result = across(finished)
    if result is None:
        return False
    if not isinstance(result, Result):
        raise ConfigError(
            f"{module.__name__}.across returned {type(result).__name__}; return a Result or None"
        )
    if (quantised := _quantisation(group)) != FULL_PRECISION:
        result = replace(result, warnings=(of_quantised(quantised), *result.warnings))
    write(group.folder, result, _provenance(group, Times(start, now())))
    return True


def _quantisation(group: _Group) -> str:
    return group.key["pass"].get("quantisation", FULL_PRECISION)


def _warn_of_mixture(groups: Sequence[_Group]) -> None:
    """Say so if a sweep holds quantised and full-precision jobs, which its one table shows."""
    found = sorted({_quantisation(group) for group in groups})
    if len(found) > 1:
        _logger.warning(
            "the sweep mixes quantisations (%s): they are assembled apart; compare no number of "
            "one with a number of another",
            ", ".join(found),
        )


def _module(target: str) -> Any:  # noqa: ANN401  (a module, whose attributes are unknown)
    """The module of an analysis; None for a user's own that this process does not know.

    A record names it, and a record may come from anywhere: only this package's own is imported.
    """
    name = target.rpartition(".")[0]
    if _OURS.fullmatch(name) and importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    return sys.modules.get(name)


def _check_models(jobs: Sequence[_Job]) -> None:
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


def _provenance(group: _Group, times: Times) -> dict[str, Any]:
    models = [job.recorded.provenance["model_digests"] for job in group.jobs]
    return provenance(
        job={
            "across": dict(group.key),
            "jobs": [job.summary() for job in group.jobs],
        },
        config={},
        times=times,
        seed=group.key["seed"],
        data_digest=group.key["data_digest"],
        model_digests={label: digest for each in models for label, digest in each.items()},
    )


def _is_current(group: _Group) -> bool:
    """Whether an assembled result is there that is about these very results."""
    if not is_finished(group.folder):
        return False
    job = read_mark(group.folder).get("job")
    return isinstance(job, dict) and job.get("jobs") == [it.summary() for it in group.jobs]


def _remove_stale(root: Path, current: Sequence[Path]) -> None:
    """Remove assembled results of jobs that the sweep no longer has; other files stay."""
    if not root.is_dir():
        return
    for folder in sorted(set(root.iterdir()) - set(current)):
        try:
            files = read_mark(folder)["files"]
            (folder / _MARK).unlink()  # first, so that a half-removed one counts as none
            for name in files:
                (folder / name).unlink(missing_ok=True)
        except (OSError, KeyError, TypeError):  # not ours, or not ours to write
            continue
        for emptied in (folder / "figures", folder, root):
            with contextlib.suppress(OSError):  # it holds something else
                emptied.rmdir()
