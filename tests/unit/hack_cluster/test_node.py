"""The node's configurations: everything in the cluster's own folders, and nothing changed that is the host's."""

from __future__ import annotations

import json
import tomllib

from hack.cluster.host import node
from hack.cluster.host.control_plane import Plan


def test_containerd_keeps_everything_in_the_clusters_folders(full_plan: Plan) -> None:
    config = tomllib.loads(node.containerd_config(full_plan, "/usr/sbin/runc"))
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    runc = runtime["containerd"]["runtimes"]["runc"]
    assert config["root"] == str(full_plan.layout.root / "containerd")
    assert config["state"] == str(full_plan.layout.run / "containerd")
    assert runc["options"]["Root"] == str(full_plan.layout.run / "runc")
    assert runc["runtime_path"] == str(full_plan.binaries["containerd-shim-runc-v2"])
    assert runtime["netns_mounts_under_state_dir"] is True
    assert runtime["restrict_oom_score_adj"] is True


def test_containerd_uses_our_pause_image(full_plan: Plan) -> None:
    config = tomllib.loads(node.containerd_config(full_plan, "runc"))
    assert config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"] == {"sandbox": node.PAUSE_IMAGE}


def test_the_kubelet_leaves_the_hosts_groups_and_rules_alone(full_plan: Plan) -> None:
    config = node.kubelet_config(full_plan)
    assert config["cgroupsPerQOS"] is False
    assert config["enforceNodeAllocatable"] == []
    assert config["makeIPTablesUtilChains"] is False
    for key in ("podLogsDir", "volumePluginDir"):
        assert config[key].startswith(str(full_plan.layout.root))


def test_the_kubelet_lets_nobody_in_without_a_certificate_or_token(full_plan: Plan) -> None:
    config = node.kubelet_config(full_plan)
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}


def test_a_crashed_model_is_tried_again_soon(full_plan: Plan) -> None:
    assert node.kubelet_config(full_plan)["crashLoopBackOff"] == {"maxContainerRestartPeriod": "10s"}


def test_services_are_masqueraded_only_where_the_bridge_is_not_filtered(full_plan: Plan) -> None:
    filtered = node.kube_proxy_config(full_plan, bridge_is_filtered=True)
    unfiltered = node.kube_proxy_config(full_plan, bridge_is_filtered=False)
    assert filtered["nftables"]["masqueradeAll"] is False
    assert unfiltered["nftables"]["masqueradeAll"] is True


def test_pod_addresses_are_leased_in_the_clusters_folder(full_plan: Plan) -> None:
    (bridge,) = node.cni_config(full_plan)["plugins"]
    assert bridge["bridge"] == "moorage0"
    assert bridge["ipam"]["dataDir"].startswith(str(full_plan.layout.root))
    assert bridge["ipMasq"] is False


def test_coredns_answers_on_the_clusters_own_address_only(full_plan: Plan) -> None:
    text = node.corefile(full_plan)
    assert "bind 10.243.1.1" in text
    assert "ready 127.0.0.1:20008" in text


def test_cluster_17_what_two_nodes_would_share_runs_in_the_clusters_network_namespace(full_plan: Plan) -> None:
    for command in (node.containerd(full_plan), node.kubelet(full_plan), node.kube_proxy(full_plan)):
        assert command.netns == str(full_plan.layout.netns)
    # It asks the host's resolvers, which may answer on the host's loopback only.
    assert node.coredns(full_plan).netns == ""


def test_the_health_of_what_is_in_the_namespace_is_asked_by_the_nodes_address(full_plan: Plan) -> None:
    assert node.kubelet_config(full_plan)["healthzBindAddress"] == "10.244.1.1"
    assert node.kube_proxy_config(full_plan, bridge_is_filtered=True)["healthzBindAddress"].startswith("10.244.1.1:")


def test_configs_are_written_where_the_commands_look(full_plan: Plan) -> None:
    full_plan.layout.config("x").parent.mkdir(parents=True)
    node.write_configs(full_plan, "runc", bridge_is_filtered=True)
    for command in (
        node.containerd(full_plan),
        node.kubelet(full_plan),
        node.kube_proxy(full_plan),
        node.coredns(full_plan),
    ):
        (path,) = [a.partition("=")[2] for a in command.argv if a.startswith(("--config=", "-conf="))]
        assert path.startswith(str(full_plan.layout.root / "config"))
        assert full_plan.layout.config(path).exists()
    assert json.loads(full_plan.layout.config("kubelet.json").read_text())["kind"] == "KubeletConfiguration"
