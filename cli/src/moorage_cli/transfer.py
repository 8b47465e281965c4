"""InferenceModels and ModelAliases as files and back: `export` writes what somebody wants, `import` applies it.

What an export has is what a person would have written, so it makes the same models on another cluster, or on this one
after it was lost. An import is server-side apply: what is the same is left alone, what others own is not taken from
them without --force.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import Resource
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from urllib3.exceptions import HTTPError

from moorage_cli.cluster import API_VERSION, AS_SENT, NAME, Cluster, in_words
from moorage_cli.output import CommandError, model_name, namespace_name
from moorage_common.manifests import clean, documents

FOLDERS: Final = {"InferenceModel": "", "ModelAlias": "aliases"}
"""Where the files of each kind are, in the folder of their namespace: an alias may have the name of a model."""

SUFFIXES: Final = {".yaml", ".yml", ".json"}


def export(cluster: Cluster, namespace: str | None, selector: str, output: str) -> None:
    """Write the models and aliases of a namespace, or with None of all: to stdout, or as files below DIR/NAMESPACE."""
    found = {
        resource.kind: [clean(item, resource.kind) for item in cluster.items(resource, namespace, selector)]
        for resource in (cluster.models, cluster.aliases)
    }
    # Nothing is written before all could be read.
    if output == "-":
        sys.stdout.write("".join(documents(items) for items in found.values() if items))
    for kind, items in found.items() if output != "-" else ():
        for item in items:
            metadata = item["metadata"]
            folder = Path(output) / metadata["namespace"] / FOLDERS[kind]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{metadata['name']}.yaml").write_text(documents([item]), encoding="utf-8")
    models, aliases = (len(items) for items in found.values())
    print(f"{models} models and {aliases} aliases exported", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Applying:
    """How models are applied."""

    dry_run: bool = False
    force: bool = False


def apply_all(cluster: Cluster, items: Sequence[dict[str, Any]], how: Applying) -> bool:
    """Apply models and aliases one by one, and say what became of each; False where one was refused."""
    counted: Counter[str] = Counter()
    for item in items:
        resource = cluster.models if item["kind"] == cluster.models.kind else cluster.aliases
        name = f"{resource.kind.lower()} {item['metadata']['namespace']}/{item['metadata']['name']}"
        try:
            outcome = _apply(resource, item, how)
        except (ApiException, HTTPError) as error:
            outcome = "failed"
            hint = " (--force takes over fields that others own)" if isinstance(error, ConflictError) else ""
            print(f"{name}: {in_words(error)}{hint}", file=sys.stderr)
        counted[outcome] += 1
        print(f"{name} {outcome}{' (dry run)' if how.dry_run else ''}")
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items())) or "nothing to do"
    print(summary, file=sys.stderr)
    return not counted["failed"]


def _apply(resource: Resource, item: dict[str, Any], how: Applying) -> str:
    metadata = item["metadata"]
    try:
        before = clean(resource.get(name=metadata["name"], namespace=metadata["namespace"], **AS_SENT))
    except NotFoundError:
        before = None
    options = {"query_params": [("fieldValidation", "Strict")], "dry_run": "All" if how.dry_run else None, **AS_SENT}
    after = clean(resource.server_side_apply(body=item, field_manager=NAME, force_conflicts=how.force, **options))
    if before is None:
        return "created"
    return "unchanged" if before == after else "configured"


def read_files(names: Sequence[str], namespace: str) -> list[dict[str, Any]]:
    """The models, and behind them the aliases, in files and folders, "-" being stdin.

    Those that name no namespace are for `namespace`. CommandError names the file of what is neither.
    """
    items = [item for name in names for item in _read(name, namespace)]
    seen: set[tuple[str, str, str]] = set()
    for item in items:
        key = item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]
        if key in seen:
            raise CommandError(f"{key[0]} {key[1]}/{key[2]} is there twice")
        seen.add(key)
    return sorted(items, key=lambda item: [*FOLDERS].index(item["kind"]))


def _read(name: str, namespace: str) -> Iterator[dict[str, Any]]:
    if name == "-":
        yield from _items(sys.stdin.read(), "stdin", namespace)
        return
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise CommandError(f"{name} has no files that end in {', '.join(sorted(SUFFIXES))}")
    else:
        files = [path]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        yield from _items(text, str(file), namespace)


def _items(text: str, where: str, namespace: str) -> Iterator[dict[str, Any]]:
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise CommandError(f"{where} is not YAML: {error}") from error
    for document in found:
        is_list = isinstance(document, dict) and str(document.get("kind", "")).endswith("List")
        for item in (document.get("items") or ()) if is_list else (document,):
            yield _checked(item, where, namespace)


def _checked(item: Any, where: str, namespace: str) -> dict[str, Any]:
    if not isinstance(item, dict) or item.get("kind") not in FOLDERS or item.get("apiVersion") != API_VERSION:
        kind = f"a {item.get('kind')} of {item.get('apiVersion')}" if isinstance(item, dict) else f"{item!r:.80}"
        raise CommandError(f"{where} has {kind}: only {' and '.join(FOLDERS)} of {API_VERSION} are imported")
    metadata, spec = item.get("metadata"), item.get("spec")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not isinstance(spec, dict):
        raise CommandError(f"{where} has a {item['kind']} without a metadata.name or a spec")
    try:
        name = model_name(metadata["name"])
        namespace = namespace_name(metadata.get("namespace") or namespace)
    except CommandError as error:
        raise CommandError(f"{where}: {error}") from error
    return clean({**item, "metadata": {**metadata, "name": name, "namespace": namespace}})
