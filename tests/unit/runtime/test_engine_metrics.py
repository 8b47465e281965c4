"""The engine's own metrics, beside the runtime's."""

from moorage_runtime.engine_metrics import chosen

THEIRS = b"""# HELP python_info Python
python_info 1.0
# HELP vllm:num_requests_running Requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 2.0
process_open_fds 3
"""


def test_only_the_series_of_the_engine_are_kept() -> None:
    assert chosen(THEIRS, b"vllm:").splitlines() == [
        b"# HELP vllm:num_requests_running Requests",
        b"# TYPE vllm:num_requests_running gauge",
        b'vllm:num_requests_running{engine="0"} 2.0',
    ]
