"""The pure parts of a download: addresses, names, what is chosen, where it may go, pauses, progress, settings."""

from __future__ import annotations

import ipaddress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_common.download import MAX_NOTE, Download
from moorage_common.facts import LoadError
from moorage_runtime.addresses import is_forbidden, is_public
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.http import PassingFailure
from moorage_runtime.fetch.names import is_allowed, is_safe_path
from moorage_runtime.fetch.patience import LONGEST_WAIT, Patience, retry_after
from moorage_runtime.fetch.plan import Choice, Digest, Remote, plan
from moorage_runtime.fetch.progress import Progress
from moorage_runtime.fetch.secrets import HIDDEN, Secrets, read_secrets
from moorage_runtime.fetch.settings import FetchSettings, describe, read_fetch_settings
from moorage_runtime.fetch.source import BucketAddress, HubAddress, WebAddress, is_loopback, parse
from moorage_runtime.hf_folder import UNSAFE
from moorage_runtime.settings import SettingsError

TENSORS, GGUF = Choice(gguf=False), Choice(gguf=True)


def chosen(names: list[str], choice: Choice) -> list[str]:
    """The names of what is fetched, in order."""
    return [file.target for file in plan([Remote(name=name) for name in names], choice, "it")]


def refusal(names: list[str], choice: Choice) -> tuple[LoadError, str]:
    """Why nothing is fetched."""
    with pytest.raises(LoadFailure) as failure:
        chosen(names, choice)
    return failure.value.termination.reason, failure.value.termination.message


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("hf://Qwen/Qwen2-7B@main", HubAddress("Qwen/Qwen2-7B", "main")),
        ("hf://a/b.c@" + "0" * 40, HubAddress("a/b.c", "0" * 40)),
        ("https://files.example/a/q4.gguf", WebAddress("https://files.example/a/q4.gguf")),
        ("https://files.example/", WebAddress("https://files.example/")),
        ("https://files.example:8443/a/", WebAddress("https://files.example:8443/a/")),
        ("s3://models", BucketAddress("models", "")),
        ("s3://models/qwen2/", BucketAddress("models", "qwen2")),
        ("s3://models/qwen2/q4.gguf", BucketAddress("models", "qwen2/q4.gguf")),
    ],
)
def test_an_address_is_read(uri: str, address: object) -> None:
    assert parse(uri) == address


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "",
            "hf://a/b",
            "hf://a@main",
            "hf://a/b@",
            "hf://a/b@x/y",
            "hf://a/..@main",
            "hf://../b@main",
            "hf://a/b@../x",
        ),
        *(
            "http://files.example/a.gguf",
            "https://files.example/a.bin",
            "https://files.example/a",
            "ftp://h.example/a/",
        ),
        *("https://u@h.example/a.gguf", "https://h.example/a.gguf?token=x", "https://h.example/a.gguf#x", "file:///a"),
        *(
            "https://127.0.0.1/a.gguf",
            f"https://{'[::1]'}/a.gguf",
            "https://2130706433/a.gguf",
            "https://0x7f000001/a.gguf",
        ),
        *(
            "https://localhost/a.gguf",
            "https://h.example/../a.gguf",
            "https://h.example/%2e%2e/a.gguf",
            "https://h.example:65536/a/",
            "https://h\\.x/a/",
        ),
        *("s3://A/b", "s3://ab", "s3://abc/../d", "s3://abc//d", "oci://x/y", "pvc://x", "hf://a/b@main\n"),
    ],
)
def test_bad_input_12_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(LoadFailure) as failure:
        parse(uri)
    assert failure.value.termination.reason is LoadError.INVALID_MODEL_CONFIG


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading_of_addresses(text: str) -> None:
    for uri in (text, f"hf://{text}", f"https://{text}", f"s3://{text}"):
        try:
            address = parse(uri)
        except LoadFailure:
            continue
        assert ".." not in str(address)
        assert "@" not in str(address).partition("//")[2].partition("/")[0]


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        *(("http://127.0.0.1:80", True), ("http://localhost:1", True), ("https://127.9.9.9", True)),
        *(
            ("http://127.0.0.1@evil.example", False),
            ("http://127.0.0.1.evil.example", False),
            ("http://169.254.0.1", False),
        ),
        *(("http://localhost.evil.example", False), ("https://hub.example", False), ("http://127.0.0.1:1/x", False)),
    ],
)
def test_only_this_machine_is_loopback(endpoint: str, local: bool) -> None:
    assert is_loopback(endpoint) is local


# -- names -------------------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters() | st.sampled_from("./\\~ "), max_size=40))
def test_a_safe_name_stays_in_the_folder(name: str) -> None:
    if is_safe_path(name):
        folder = PurePosixPath("/models")
        path = folder / name
        assert folder in path.parents
        assert not {".", "..", ""} & set(name.split("/"))
        assert not any(part.startswith(".") for part in name.split("/"))
        assert name.isprintable()


@given(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.sampled_from(sorted(UNSAFE | {".py", ".sh", ".zip", ".tar", ""}))
)
def test_bad_input_15_nothing_that_can_run_is_ever_allowed(stem: str, ending: str) -> None:
    for name in (stem + ending, f"folder/{stem}{ending}", f"{stem}.safetensors{ending}", f"tokenizer.json{ending}"):
        assert is_allowed(name) is (ending == "" and name.endswith((".safetensors", ".json")))


@given(
    st.lists(st.text(alphabet="abc./-_0159xfgu", max_size=30) | st.just("model.safetensors"), max_size=20, unique=True)
)
def test_whatever_is_listed_only_allowed_files_with_names_of_their_own_are_chosen(names: list[str]) -> None:
    for choice in (TENSORS, GGUF):
        try:
            found = chosen(names, choice)
        except LoadFailure:
            continue
        assert len(set(found)) == len(found)
        assert all(is_allowed(name) for name in found)


# -- what is chosen ----------------------------------------------------------------------------------------------------

CONFIGS = ["config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt"]


@pytest.mark.parametrize(
    ("weights", "others"),
    [
        (["model.safetensors"], ["pytorch_model.bin", "tf_model.h5", "README.md", "modeling.py", "training_args.bin"]),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], ["consolidated.safetensors"]),
        (["gptq_model-4bit-128g.safetensors"], ["quantize.py"]),
        (["model.safetensors"], ["original/model.safetensors", "onnx/config.json", "metal/model.json"]),
        (["adapter_model.safetensors"], []),
        (["model.safetensors"], ["q4.gguf"]),
    ],
)
def test_weights_tokenizer_and_configuration_are_chosen_small_first(weights: list[str], others: list[str]) -> None:
    assert chosen([*others, *weights, *CONFIGS], TENSORS) == [*sorted(CONFIGS), *weights]


def test_parts_with_an_index_are_chosen_and_the_whole_beside_them_is_not() -> None:
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert chosen([*parts, "model.safetensors", index], TENSORS) == [index, *parts]


def test_the_folders_of_sentence_transformers_are_chosen() -> None:
    names = [
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "model.safetensors",
        "openvino/x.json",
    ]
    assert set(chosen(names, TENSORS)) == set(names[:4])


def test_one_gguf_model_is_chosen_with_all_its_parts_and_kept_in_one_folder() -> None:
    parts = [f"Q4_K_M/tiny-Q4_K_M-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert chosen([*parts, "README.md", "mmproj-f16.gguf"], GGUF) == [part[7:] for part in parts]


MANY = ["tiny-Q4_K_M.gguf", "tiny.Q8_0.gguf", "tiny-IQ4_XS.gguf", "tiny-f16.gguf", "tiny-Q4_K_S-imat.gguf"]


@pytest.mark.parametrize(
    ("type_", "name"),
    [("q4_k_m", MANY[0]), ("q8_0", MANY[1]), ("iq4_xs", MANY[2]), ("f16", MANY[3]), ("q4_k_s", MANY[4])],
)
def test_of_several_gguf_models_the_type_says_which(type_: str, name: str) -> None:
    assert chosen(MANY, Choice(gguf=True, quantization=type_)) == [name]


@pytest.mark.parametrize("type_", ["", "q5_0"])
def test_several_gguf_models_and_nothing_that_says_which(type_: str) -> None:
    reason, message = refusal(MANY, Choice(gguf=True, quantization=type_))
    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert all(name in message for name in MANY)
    assert "spec.source.files" in message


def test_a_gguf_model_that_lacks_a_part() -> None:
    reason, message = refusal(["tiny-00001-of-00003.gguf", "tiny-00003-of-00003.gguf"], GGUF)
    assert (reason, "2 of the 3 parts" in message) == (LoadError.MODEL_NOT_FOUND, True)


@pytest.mark.parametrize("choice", [TENSORS, GGUF])
def test_bad_input_15_pickles_only(choice: Choice) -> None:
    reason, message = refusal(["config.json", "pytorch_model.bin", "x.pt"], choice)
    assert reason is LoadError.UNSAFE_WEIGHTS
    assert "pytorch_model.bin" in message


@pytest.mark.parametrize(
    ("names", "shown"), [([], "nothing"), (["a.gguf"], "a.gguf"), (["config.json"], "config.json")]
)
def test_no_model_says_what_is_there_instead(names: list[str], shown: str) -> None:
    reason, message = refusal(names, TENSORS)
    assert (reason, message) == (LoadError.MODEL_NOT_FOUND, f"it has no safetensors files; it has {shown}")


def test_files_that_are_named_are_chosen_and_no_others() -> None:
    names = ["a.gguf", "b.gguf", "config.json"]
    assert chosen(names, Choice(gguf=True, files=("b.gguf",))) == ["b.gguf"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("c.gguf",), LoadError.MODEL_NOT_FOUND),
        (("config.json",), LoadError.INVALID_MODEL_CONFIG),
        (("a.gguf", "x.py"), LoadError.INVALID_MODEL_CONFIG),
        (("a.gguf", "x.bin"), LoadError.UNSAFE_WEIGHTS),
        (("../a.gguf",), LoadError.INVALID_MODEL_CONFIG),
    ],
)
def test_files_that_are_named_and_cannot_be_had(files: tuple[str, ...], reason: LoadError) -> None:
    names = ["a.gguf", "config.json", "x.py", "x.bin"]
    assert refusal(names, Choice(gguf=True, files=files))[0] is reason


def test_a_sum_is_of_one_file() -> None:
    sha = "a" * 64
    (file,) = plan([Remote(name="a.gguf")], Choice(gguf=True, sha256=sha.upper()), "it")
    assert file.remote.digest == Digest("sha256", sha)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert refusal(names, Choice(gguf=False, sha256=sha))[0] is LoadError.INVALID_MODEL_CONFIG


# -- where a connection may go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "::1", "0.0.0.1", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1"),
        *("::ffff:169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254"),
        *("::127.0.0.1", "::169.254.169.254", "::ffff:0:169.254.169.254", "fec0::1", "fd20:ce::254", "fd00:ec2::23"),
        *(
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00::",
        ),
        *("2001:0:a9fe:a9fe::1", "2001:0:5db8:d822::5601:5601"),
        *("100.100.100.200", "168.63.129.16", "192.0.0.192", "255.255.255.255", "240.0.0.1", "ff02::1"),
    ],
)
def test_bad_input_12_addresses_that_nothing_is_fetched_from(address: str) -> None:
    assert is_forbidden(address, loopback=False)
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("93.184.216.34", "10.1.2.3", "192.168.1.1", "172.16.1.1", "100.64.1.1", "fd12::1", "2606:4700::1"),
        *("::10.1.2.3", "::ffff:0:10.1.2.3", "64:ff9b::10.1.2.3", "64:ff9b:1::10.1.2.3", "64:ff9b:1:a01:2:300::"),
        *("2002:a01:203::1", "2001:0:5db8:d822::f5fe:fdfc"),
    ],
)
def test_other_addresses_are_allowed(address: str) -> None:
    assert not is_forbidden(address, loopback=False)


@given(st.ip_addresses())
def test_every_address_is_judged_and_tests_reach_no_more_than_the_loopback(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    shut, opened = (is_forbidden(str(address), loopback=loopback) for loopback in (False, True))
    assert shut or not opened
    assert (shut is opened) or "127." in str(address) or address.is_loopback or address.version == 6


@given(st.ip_addresses())
def test_what_is_forbidden_is_not_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert not (is_public(str(address)) and is_forbidden(str(address), loopback=False))


@pytest.mark.parametrize("address", ["10.1.2.3", "fd12::1", "64:ff9b:1::93.184.216.34", "::10.1.2.3", "100.64.1.1"])
def test_what_is_private_is_not_public(address: str) -> None:
    assert not is_public(address)


# -- pauses ------------------------------------------------------------------------------------------------------------


def test_pauses_grow_with_jitter_up_to_a_bound_and_begin_anew_with_progress() -> None:
    patience = Patience(10, chance=lambda: 1.0)
    assert [patience.pause(PassingFailure("x")) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    patience.progress()
    assert patience.pause(PassingFailure("x")) == 1
    assert Patience(10, chance=lambda: 0.0).pause(PassingFailure("x")) == 0.5


@given(st.floats(0, 1e9), st.integers(0, 8))
def test_a_wait_that_is_asked_for_is_kept_and_bounded(asked: float, failures: int) -> None:
    patience = Patience(20)
    for _ in range(failures):
        patience.pause(PassingFailure("x"))
    assert min(asked, LONGEST_WAIT) <= patience.pause(PassingFailure("x", asked)) <= LONGEST_WAIT


@given(st.text(max_size=40))
def test_any_retry_after_is_understood_or_ignored(text: str) -> None:
    found = retry_after(text)
    assert found is None or found >= 0


# -- progress ----------------------------------------------------------------------------------------------------------


def test_progress_has_speed_and_time_left_of_what_has_come_now() -> None:
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    assert progress.now() == Download()
    progress.expect({"a": 1000, "b": None})
    progress.there("a", 400)
    assert progress.now().bytes_total is None
    progress.learn("b", 1000)
    for _ in range(4):
        now[0] += 1
        progress.received("b", 100)
    assert progress.now() == Download(800, 2000, 100, 12, 0, 2)
    now[0] += 30
    progress.waits("why")
    assert progress.now().bytes_per_second < 10, "what was long ago is no speed"
    assert progress.now().note == "why"
    progress.received("b", 600)
    progress.finished("b", 1000)
    progress.finished("a", 1000)
    assert (progress.now().bytes_done, progress.now().files_done, progress.now().note) == (2000, 2, "")


@pytest.mark.parametrize(
    ("download", "words"),
    [
        (Download(), "0 B"),
        (Download(500, 1000), "500 of 1000 B"),
        (Download(13_207_024_435, 15_247_133_900, 210_000_000, 9), "12.3 of 14.2 GiB, 210 MB/s, 9 s left"),
        (Download(1 << 20, None, 20_000), "1.0 MiB, 20 kB/s"),
        (Download(0, 1 << 40, 1, 3_600_000), "0.0 of 1.0 TiB, 1 B/s, 1000 h 0 min left"),
        (Download(1, 2, 0, 150), "1 of 2 B, 3 min left"),
        (Download(-5, -7, -1, -1, note="x"), "0 of 0 B; x"),
    ],
)
def test_progress_in_words(download: Download, words: str) -> None:
    assert download.words() == words


@given(st.integers(-(2**63), 2**64), st.none() | st.integers(-(2**63), 2**64), st.text(max_size=1000))
def test_whatever_a_pod_says_the_words_are_short(number: int, other: int | None, note: str) -> None:
    assert len(Download(number, other, number, other, number, number, note).words()) < MAX_NOTE + 150


# -- secrets and settings ----------------------------------------------------------------------------------------------


def test_secrets_are_shown_nowhere() -> None:
    secrets = read_secrets({"HF_TOKEN": 'hf_"quoted"/x', "PATH": "/bin", "AWS_REGION": "eu-1", "SECRET_NAME": "s"})
    assert "hf_" not in repr(secrets)
    assert "hf_" not in str(secrets)
    assert (
        secrets.hide('a hf_"quoted"/x b hf_\\"quoted\\"/x c hf_%22quoted%22%2Fx') == f"a {HIDDEN} b {HIDDEN} c {HIDDEN}"
    )
    assert secrets.hide("eu-1") == "eu-1"
    assert Secrets({"HF_TOKEN": "x"}).hide("x-ray") == "x-ray", "what is shorter than a secret is in every text"


def test_settings_are_read_and_described() -> None:
    settings = read_fetch_settings(
        {"MODEL_SOURCE": "s3://abc", "MODEL_FILES": '["a.gguf"]', "MODEL_SIZE_LIMIT": "7", "FETCH_STALL_SECONDS": "1.5"}
    )
    assert (settings.model_files, settings.model_size_limit, settings.fetch_stall_seconds) == (("a.gguf",), 7, 1.5)
    assert settings.model_folder == Path("/models")
    assert {name for name, _, _ in describe()} == {name.upper() for name in FetchSettings.__struct_fields__}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "https://hub.example"),
        ("HF_ENDPOINT", "http://169.254.0.1"),
        ("HF_ENDPOINT", "http://127.0.0.1.evil.example"),
        ("MODEL_SHA256", "abc"),
        ("MODEL_FILES", "a.gguf"),
        ("FETCH_CONCURRENCY", "0"),
        ("FETCH_STALL_SECONDS", "0"),
        ("MODEL_SOURCE", ""),
    ],
)
def test_a_setting_that_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_fetch_settings({"MODEL_SOURCE": "s3://abc", name: value})
