"""`python -m tests.golden.update`: writes each case's `expected.yaml` anew and names those that changed."""

from tests.golden.cases import cases


def main() -> None:
    """Write what differs."""
    for case in cases():
        text = case.rendered()
        if not case.expected_file.exists() or case.expected_file.read_text(encoding="utf-8") != text:
            case.expected_file.write_text(text, encoding="utf-8")
            print(f"wrote {case.expected_file}")


if __name__ == "__main__":
    main()
