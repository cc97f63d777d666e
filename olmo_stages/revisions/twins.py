"""Revisions or stages whose weights are the same although they should not be.

An upload error of the released family: two steps of one run were uploaded with the same weights. A
curve through them shows no change there, and a comparison of the two shows none at all.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo_stages.revisions.hub import is_commit, read_ref

_BLOB = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"models--(.+?)--(.+)")
_RANDOM = " (random)"

Content = tuple[tuple[str, str], ...]
"""Names and digests of weight files."""


@dataclass(frozen=True)
class Twins:
    """Names of the same weights.

    Args:
        names: stages or revisions, as `where` calls them.
        where: where they were seen.
    """

    names: tuple[str, ...]
    where: str

    def __str__(self) -> str:
        return (
            f"{' and '.join(self.names)} have the same weights ({self.where}): an upload error, or "
            "one model under two names; a comparison of them shows no difference"
        )


def same(digests: Mapping[str, str | Content]) -> tuple[tuple[str, ...], ...]:
    """Group names by digest.

    Args:
        digests: digest of the weights by name.

    Returns:
        The groups of two and more, in the order of their first names.
    """
    groups: dict[str | Content, list[str]] = {}
    for name, digest in digests.items():
        groups.setdefault(digest, []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def content(snapshot: Path) -> Content | None:
    """Digests of the weight files of a snapshot in the hub's cache, without reading them.

    The cache names a large file by its SHA-256, and a snapshot links to it.

    Returns:
        None if the folder has no safetensors weights, or is no folder of links.
    """
    files = sorted(snapshot.glob("*.safetensors"))
    blobs = [file.readlink().name if file.is_symlink() else "" for file in files]
    if not files or not all(map(_BLOB.fullmatch, blobs)):
        return None
    return tuple(zip((file.name for file in files), blobs, strict=True))


def in_cache(cache: Path) -> tuple[Twins, ...]:
    """Find revisions with the same weights in the hub's cache, over all repositories.

    Args:
        cache: the hub's cache folder.
    """
    found: dict[str, Content] = {}
    spelt: set[str] = set()
    for folder in sorted(cache.glob("models--*--*")):
        repository = _REPOSITORY.fullmatch(folder.name)
        if repository is None or folder.name.casefold() in spelt:
            continue  # the hub takes an id in any case, and the cache keeps each spelling
        spelt.add(folder.name.casefold())
        for ref in sorted((folder / "refs").rglob("*")):
            weights = content(folder / "snapshots" / (read_ref(ref) or "none"))
            if weights is not None:
                revision = ref.relative_to(folder / "refs").as_posix()
                found[f"{repository[1]}/{repository[2]}@{revision}"] = weights
    return tuple(Twins(names, "hub cache") for names in same(found))


def under_two_commits(digests: Mapping[str, str], cache: Path | None = None) -> Twins | None:
    """Find two stages of a comparison whose commits differ and whose weights do not.

    Args:
        digests: identity of the weights by label; a commit for a stage from the hub.
        cache: the hub's cache folder; None = where it is on this machine.

    Returns:
        None if they differ, or if it cannot be told.
    """
    if not all(map(is_commit, digests.values())):
        return None
    if cache is None:
        from huggingface_hub import constants

        cache = Path(constants.HF_HUB_CACHE)
    found = same({label: _content_of(digest, cache) for label, digest in digests.items()})
    return Twins(found[0], "hub cache") if found else None


def in_results(outputs: Path, cache: Path | None = None) -> tuple[Twins, ...]:
    """Find stages with the same weights among the results of all jobs.

    Args:
        outputs: folder of the results, OUTPUTS/ANALYSIS/STAGE/DATA.
        cache: the hub's cache folder: two commits with the same weights are found there.
    """
    folders = [path.parent for path in sorted(outputs.glob("*/*/*/provenance.json"))]
    return of_folders(folders, cache, str(outputs))


def of_folders(
    folders: Iterable[Path], cache: Path | None = None, where: str = "this sweep"
) -> tuple[Twins, ...]:
    """Find stages with the same weights among results; see `of_jobs`."""
    return of_jobs((_read(folder / "provenance.json") for folder in folders), cache, where)


def of_jobs(
    provenances: Iterable[Mapping[str, Any]], cache: Path | None = None, where: str = "this sweep"
) -> tuple[Twins, ...]:
    """Find stages with the same weights among jobs, from their records.

    Random initialisations are left out: those of one shape and seed are the same by intention. So
    are stages that are named by a commit, which another name may stand for.

    Args:
        provenances: records of the jobs; what is no record is passed over.
        cache: the hub's cache folder.
        where: what the message calls the place.
    """
    found: dict[str, str | Content] = {}
    for record in provenances:
        job, digests = record.get("job"), record.get("model_digests")
        if not isinstance(job, Mapping) or not isinstance(digests, Mapping):
            continue
        for side in (job.get("stage"), job.get("reference")):
            if not isinstance(side, Mapping) or "label" not in side:
                continue
            label = str(side["label"])
            if (
                label in digests
                and not label.endswith(_RANDOM)
                and not is_commit(label.partition("@")[2])
            ):
                found[f"{label} ({side.get('size')})"] = _content_of(str(digests[label]), cache)
    return tuple(Twins(names, where) for names in same(found))


def _content_of(digest: str, cache: Path | None) -> str | Content:
    """Digests of the weight files behind a commit, if they are in the cache, or the digest."""
    if cache is None or not is_commit(digest):
        return digest
    contents = (content(path) for path in cache.glob(f"models--*--*/snapshots/{digest}"))
    return next((it for it in contents if it is not None), digest)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
