"""The table of claims says what the tests and benchmarks claim, and no more."""

import claims


def test_the_table_of_claims_is_of_today():
    page = claims.PAGE.read_text()
    assert page == claims.renewed(page), "CONTRIBUTING.md is stale; run python tests/claims.py"


def test_a_claim_is_a_line_of_a_table():
    for claim in {claim for claim, *_ in [*claims.of_tests(), *claims.of_benchmarks()]}:
        assert claim == " ".join(claim.split()).strip()
        assert "|" not in claim
