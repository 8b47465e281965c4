"""The manifests of each golden case, compared whole; `python -m tests.golden.update` writes them anew."""

import pytest

from tests.golden.cases import Case, cases


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.folder.name)
def test_a_model_gives_the_manifests_that_are_kept(case: Case) -> None:
    assert case.manifests() == case.expected()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.folder.name)
def test_the_kept_file_is_as_update_writes_it(case: Case) -> None:
    assert case.expected_file.read_text(encoding="utf-8") == case.rendered()


def test_every_folder_of_golden_files_is_a_case() -> None:
    folders = {folder.parent for folder in cases()[0].folder.parent.glob("*/*.yaml")}
    assert folders == {case.folder for case in cases()}
    assert len(folders) >= 7
