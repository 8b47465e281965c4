"""What each command does, and what went wrong in one line."""

import argparse
import sys

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from moorage_cli import keys, transfer
from moorage_cli.cluster import Cluster, in_words
from moorage_cli.kubeconfig import reach
from moorage_cli.output import CommandError, namespace_name


def run(asked: argparse.Namespace) -> int:
    """Run a command; gives the exit code."""
    try:
        return _run(asked)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
    except (ApiException, HTTPError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror}", file=sys.stderr)
    return 1


def _run(asked: argparse.Namespace) -> int:
    client, namespace = reach(asked.kubeconfig, asked.context)
    with client:
        cluster = Cluster(client)
        namespace = namespace_name(asked.namespace or namespace)
        if asked.command == "key":
            _key(cluster, asked)
        elif asked.command == "export":
            transfer.export(cluster, None if asked.all_namespaces else namespace, asked.selector, asked.output)
        else:
            items = transfer.read_files(asked.files, namespace)
            how = transfer.Applying(dry_run=asked.dry_run, force=asked.force)
            return 0 if transfer.apply_all(cluster, items, how) else 1
    return 0


def _key(cluster: Cluster, asked: argparse.Namespace) -> None:
    if asked.action == "list":
        keys.show(cluster, asked.namespace)
    elif asked.action == "revoke":
        keys.revoke(cluster, asked.name, asked.namespace)
    else:
        wanted = keys.Wanted(
            name=asked.name,
            models=asked.models,
            scopes=asked.scopes,
            expires=asked.expires,
            requests_per_minute=asked.requests_per_minute,
            tokens_per_minute=asked.tokens_per_minute,
            priority=asked.priority,
        )
        keys.create(cluster, wanted, asked.namespace)
