"""The digest of an image's inputs: it moves with them and with nothing else."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hack.images.inputs import DIGEST_LENGTH, digest_of, files_below

INPUTS = st.dictionaries(st.text(max_size=8), st.binary(max_size=8), max_size=5)


@given(INPUTS, INPUTS)
def test_two_sets_of_inputs_share_a_digest_only_when_they_are_equal(
    one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    assert (digest_of(one.items()) == digest_of(other.items())) == (one == other)


def test_the_digest_is_short_enough_for_a_tag() -> None:
    assert len(digest_of([])) == DIGEST_LENGTH == 12


def test_what_python_and_editors_leave_is_no_input(tmp_path: Path) -> None:
    for name in ("a.py", "py.typed", "sub/b.py", "__pycache__/a.pyc", ".hidden", "a.py~", ".a.py.swp", "sub/.cache/x"):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = files_below(tmp_path / "src", tmp_path)
    assert sorted(name for name, _ in found) == ["src/a.py", "src/py.typed", "src/sub/b.py"]


def test_a_changed_a_renamed_and_a_new_file_each_move_the_digest(tmp_path: Path) -> None:
    def digest() -> str:
        return digest_of(files_below(tmp_path, tmp_path))

    (tmp_path / "a.py").write_text("1")
    digests = [digest()]
    (tmp_path / "a.py").write_text("2")
    digests.append(digest())
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    digests.append(digest())
    (tmp_path / "empty.py").touch()
    digests.append(digest())
    assert len(set(digests)) == 4
