"""The table of docs/samplers.md, measured: python benchmarks/sampler_orders.py

Deterministic steppers against the exact flow of a mixture, on VP in uneven steps; stochastic ones by the exact spread
of their result on Gaussian data.

Claim: the orders in docs/samplers.md"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "samplers")]

from columns import spread  # noqa: E402
from roster import STEPPERS  # noqa: E402
from test_sampler_orders import setting, solve, uneven  # noqa: E402

PUBLISHED = "lacks a factor 2, order 2: `published=True`"

# name, row of the roster, note, reference; the facts are the stepper's.
TABLE = [
    ("`euler`, `ddim(0)`", "euler", "", "Song et al. 2021, DDIM"),
    ("`heun`", "heun", "", "Karras et al. 2022"),
    ("`dpm_2s` (k-diffusion's dpm_2)", "dpm_2s", "", "Lu et al. 2022, DPM-Solver"),
    ("`dpm_3s`", "dpm_3s", "", "Lu et al. 2022, DPM-Solver"),
    ("`dpm_2m`", "dpm_2m", "", "Lu et al. 2022, DPM-Solver"),
    ("`dpm_3m`", "dpm_3m", PUBLISHED, "Lu et al. 2022, DPM-Solver"),
    ("`dpmpp_2s`", "dpmpp_2s", "", "Lu et al. 2022, DPM-Solver++"),
    ("`dpmpp_3s`", "dpmpp_3s", "", "Lu et al. 2022, DPM-Solver++"),
    ("`dpmpp_2m`", "dpmpp_2m", "", "Lu et al. 2022, DPM-Solver++"),
    ("`dpmpp_3m`", "dpmpp_3m", PUBLISHED, "Lu et al. 2022, DPM-Solver++"),
    ("`deis(4)`", "deis_4", "", "Zhang and Chen 2023, DEIS"),
    ("`lms(4)`", "lms_4", "", "Adams-Bashforth; k-diffusion"),
    ("`unipc(2)`", "unipc_2", "`published=bh1` or `bh2`", "Zhao et al. 2023"),
    ("`unipc(3)`", "unipc_3", "`published=bh1` or `bh2`", "Zhao et al. 2023"),
    ("`ancestral`, `ddim(1)`", "ancestral", "", "Ho et al. 2020"),
    ("`ddim(eta)`", "ddim_half", "", "Song et al. 2021, DDIM"),
    ("`reverse_sde`", "reverse_sde", "", "Song et al. 2021, SDE"),
    ("`ancestral_form(dpm_2s)`", "ancestral_form_dpm_2s", "", "k-diffusion's dpm_2_ancestral"),
    ("`dpmpp_sde`", "dpmpp_sde", "order 1 when its two draws are independent", "k-diffusion"),
    ("`dpmpp_2m_sde`", "dpmpp_2m_sde", "", "Lu et al. 2022, DPM-Solver++"),
    ("`dpmpp_3m_sde`", "dpmpp_3m_sde", "lacks a factor 2: `published=True`", "k-diffusion"),
]


def weak_error(process, stepper, n):
    """Of the standard deviation, on data N(0, .25), from sigma / alpha = 8 down to .1."""
    ts = process.time_of(jnp.geomspace(8.0, 0.1, n + 1))
    begin, end = (jnp.sqrt(0.25 * a**2 + s**2) for a, s in (process.scales(ts[0]), process.scales(ts[-1])))
    return abs(spread(process, stepper, ts, begin, 0.25, with_last=False) - end)


def order(row):
    p, x, exact = setting("vp")
    if row.stochastic:
        errors = [weak_error(p, row.make(p), n) for n in (160, 320)]
    else:
        grids = (uneven(p, n) for n in (row.steps, 2 * row.steps))
        errors = [np.linalg.norm(solve(p, row.make(p), ts, x)[1] - exact[1]) for ts in grids]
    return float(np.log2(errors[0] / errors[1]))


def remembers(row):
    return bool(jax.tree.leaves(row.facts.init(jnp.ones(2), jnp.asarray(0.9))))


def main() -> None:
    print("| sampler | order | calls a step | stochastic | multistep | published form | reference |")
    print("|---|---|---|---|---|---|---|")
    with jax.enable_x64(True):
        for name, key, note, reference in TABLE:
            row = STEPPERS[key]
            multistep = "yes" if remembers(row) else ""
            stochastic = "yes" if row.stochastic else ""
            cells = f"{order(row):.1f}", str(row.calls), stochastic, multistep, note, reference
            print("|", " | ".join((name, *cells)).replace("  ", " "), "|", flush=True)


if __name__ == "__main__":
    main()
