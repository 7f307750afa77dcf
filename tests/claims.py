"""The table "What is claimed" of CONTRIBUTING.md: python tests/claims.py

A row is `pytest.mark.claim("sentence")` on a test or, as `pytestmark`, on a whole file; a second word is an option of
pytest's ("-s" for what prints). A benchmark's is the last paragraph of its docstring, "Claim: sentence". Equal
sentences are one row, with all that shows it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- written by tests/claims.py from here -->\n", "<!-- to here -->\n"


def of_tests():
    """(claim, how it is shown, options) of every mark in the tests."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                name, marked = f"::{node.name}", node.decorator_list
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
                name, marked = "", ast.walk(node.value)
            else:
                continue
            for mark in marked:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
                    claim, *options = map(ast.literal_eval, mark.args)
                    yield claim, f"{file.relative_to(ROOT)}{name}", options


def of_benchmarks():
    """(claim, file) of every benchmark that has one."""
    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        _, found, claim = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\nClaim: ")
        if found:
            yield " ".join(claim.split()), str(file.relative_to(ROOT))


def table():
    """The rows, those of tests in the order of their files, then those of benchmarks."""
    tests, options, programs = {}, {}, {}
    for claim, test, words in of_tests():
        tests.setdefault(claim, []).append(test)
        options.setdefault(claim, {}).update(dict.fromkeys(words))
    for claim, file in of_benchmarks():
        programs.setdefault(claim, []).append(f"`.venv/bin/python {file}`")
    rows = ["| claim | command |", "|---|---|"]
    for claim in tests | programs:
        shown = [f"`{' '.join(['P', *tests[claim], *options[claim]])}`"] if claim in tests else []
        rows.append(f"| {claim} | {', '.join(shown + programs.get(claim, []))} |")
    return "\n".join(rows) + "\n"


def renewed(page):
    """The page with today's table between its two comments."""
    before, after = page.split(START)[0], page.split(END)[1]
    return f"{before}{START}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
