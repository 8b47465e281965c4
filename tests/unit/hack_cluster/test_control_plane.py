"""The control plane's arguments."""

from __future__ import annotations

from hack.cluster.host import control_plane
from hack.cluster.host.control_plane import AUDIT_POLICY, Plan
from hack.cluster.host.process import Command


def everything(plan: Plan) -> list[Command]:
    made = (control_plane.etcd, control_plane.api_server, control_plane.controller_manager, control_plane.scheduler)
    return [make(plan) for make in made]


def test_nothing_listens_on_all_interfaces(full_plan: Plan, api_plan: Plan) -> None:
    for plan in (full_plan, api_plan):
        assert not [argument for command in everything(plan) for argument in command.argv if "0.0.0.0" in argument]  # noqa: S104


def test_the_api_server_binds_to_the_clusters_own_address_only_with_a_node(full_plan: Plan, api_plan: Plan) -> None:
    assert "--bind-address=10.243.1.1" in control_plane.api_server(full_plan).argv
    assert "--bind-address=127.0.0.1" in control_plane.api_server(api_plan).argv


def test_the_advertised_address_is_never_loopback(api_plan: Plan) -> None:
    assert "--advertise-address=10.243.0.1" in control_plane.api_server(api_plan).argv


def test_the_api_server_knows_kubelets_only_with_a_node(full_plan: Plan, api_plan: Plan) -> None:
    def asks(plan: Plan) -> bool:
        return any(argument.startswith("--kubelet-") for argument in control_plane.api_server(plan).argv)

    assert asks(full_plan)
    assert not asks(api_plan)


def test_services_are_in_the_clusters_own_range(full_plan: Plan) -> None:
    for command in (control_plane.api_server(full_plan), control_plane.controller_manager(full_plan)):
        assert "--service-cluster-ip-range=10.97.0.0/16" in command.argv


def test_pods_that_ask_for_gpus_tolerate_the_taint_of_gpu_nodes(api_plan: Plan) -> None:
    (plugins,) = [a for a in control_plane.api_server(api_plan).argv if a.startswith("--enable-admission-plugins=")]
    assert "ExtendedResourceToleration" in plugins


def test_two_plans_share_no_file(full_plan: Plan) -> None:
    for command in everything(full_plan):
        paths = [
            argument.partition("=")[2] for argument in command.argv[1:] if argument.partition("=")[2].startswith("/")
        ]
        assert all(path.startswith(str(full_plan.layout.root)) for path in paths)


def test_the_audit_log_holds_writes_once_and_no_reads() -> None:
    first, last = AUDIT_POLICY["rules"]
    assert first == {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]}
    assert last == {"level": "None"}
    assert AUDIT_POLICY["omitStages"] == ["RequestReceived"]


def test_kwok_manages_all_nodes_only_where_none_is_real(full_plan: Plan, api_plan: Plan) -> None:
    assert "--manage-all-nodes=true" in control_plane.kwok(api_plan).argv
    assert "--manage-all-nodes=false" in control_plane.kwok(full_plan).argv
    selector = "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"
    assert selector in control_plane.kwok(full_plan).argv


def test_kwok_gets_every_stage_that_was_built_with_it(api_plan: Plan) -> None:
    folder = api_plan.binaries["kwok"].parent
    folder.mkdir(parents=True)
    for name in ("node-initialize.yaml", "pod-ready.yaml"):
        (folder / name).touch()
    stages = [argument for argument in control_plane.kwok(api_plan).argv if argument.startswith("--config=")]
    assert stages == [f"--config={folder}/node-initialize.yaml", f"--config={folder}/pod-ready.yaml"]
