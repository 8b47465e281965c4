"""`kubectl moorage …`: as a plugin of kubectl (a program `kubectl-moorage` on PATH), or by that name itself.

Exit codes: 0 done, 1 not done or not all of it, 2 a command line that is none.
"""

import argparse
import sys
from collections.abc import Sequence

KEYS = "moorage-keys"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    asked = _parser().parse_args(arguments)
    from moorage_cli.commands import run  # the client takes most of a second to load: --help does not wait for it

    return run(asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl moorage", description="Models of Moorage, and the gateway's API keys."
    )
    cluster = argparse.ArgumentParser(add_help=False)
    cluster.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, ~/.kube/config, the pod's account")
    cluster.add_argument("--context", help="default: the current one")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _key_parser(commands.add_parser("key", help="API keys of the gateway"), cluster)

    exporting = commands.add_parser(
        "export", parents=[cluster], help="write models and aliases as YAML that can be imported again"
    )
    one = exporting.add_mutually_exclusive_group()
    one.add_argument("-n", "--namespace", help="default: the context's")
    one.add_argument("-A", "--all-namespaces", action="store_true")
    exporting.add_argument("-l", "--selector", default="", help="labels, as kubectl takes them")
    exporting.add_argument("-o", "--output", default="-", metavar="DIR", help="a folder; default: -, stdout")

    importing = commands.add_parser(
        "import", aliases=["apply"], parents=[cluster], help="apply models and aliases from files"
    )
    importing.add_argument("files", nargs="+", metavar="FILE|DIR|-")
    importing.add_argument("-n", "--namespace", help="for models that name none; default: the context's")
    importing.add_argument("--dry-run", action="store_true", help="ask the API server, and change nothing")
    importing.add_argument("--force", action="store_true", help="take over fields that others own")
    return parser


def _key_parser(key: argparse.ArgumentParser, cluster: argparse.ArgumentParser) -> None:
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    where = argparse.ArgumentParser(add_help=False, parents=[cluster])
    where.add_argument("-n", "--namespace", default=KEYS, help=f"gateway.keyNamespace of the chart; default: {KEYS}")
    creating = actions.add_parser("create", parents=[where], help="make a key, and print it once, on stdout")
    creating.add_argument("name", help="lower-case letters, digits and '-'")
    creating.add_argument(
        "--models",
        action="append",
        default=[],
        metavar="NAMESPACE/NAME",
        help="or NAMESPACE/*, */*; as often as wanted",
    )
    creating.add_argument("--scopes", action="append", default=[], metavar="SCOPE", help="generate (default), manage")
    creating.add_argument("--expires", metavar="TIME", help="2027-01-31T00:00:00Z, or from now: 90d, 12h")
    creating.add_argument("--requests-per-minute", type=int, metavar="N")
    creating.add_argument("--tokens-per-minute", type=int, metavar="N")
    creating.add_argument("--priority", type=int, metavar="1-10", help="who goes first when a model wakes; default: 5")
    actions.add_parser("list", parents=[where], help="list the keys")
    actions.add_parser("revoke", parents=[where], help="delete a key").add_argument("name")


if __name__ == "__main__":
    sys.exit(main())
