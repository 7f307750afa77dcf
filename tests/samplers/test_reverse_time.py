"""diffrax gets ODEs alone from jaxdiff. Its solvers of SDEs (0.7.2) are wrong where time runs backwards, which is where
a diffusion is sampled, and say nothing; ours are scans of our own."""

import ast
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff
from jaxdiff import processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.oracles import gaussian

pytestmark = pytest.mark.claim("no SDE is handed to diffrax, which walks them wrongly backwards")


ROOT = Path(jaxdiff.__file__).parent

ODES = {
    "AbstractERK", "AbstractImplicitSolver", "AbstractStepSizeController", "AbstractWrappedSolver",
    "Dopri5", "Dopri8", "Euler", "Heun", "LeapfrogMidpoint", "ODETerm", "PIDController", "RESULTS",
    "RecursiveCheckpointAdjoint", "ReversibleHeun", "SaveAt", "StepTo", "Tsit5", "diffeqsolve",
}  # fmt: skip
"""What an ODE is made of: no ControlTerm, no MultiTerm, no Brownian path, no stochastic solver."""


def used(source):
    """The names of diffrax that a source text uses, under whatever name it was imported."""
    tree = ast.parse(source)
    aliases, names = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == "diffrax"}
            names |= {alias.name for alias in node.names if alias.name.startswith("diffrax.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffrax":
            names |= {alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            names.add(node.attr)
    return names


def test_diffrax_is_used_for_odes_alone():
    found = {file.relative_to(ROOT): used(file.read_text()) for file in sorted(ROOT.rglob("*.py"))}
    strange = {str(file): sorted(names - ODES) for file, names in found.items() if names - ODES}
    assert not strange, f"diffrax walks SDEs backwards wrongly; write a stepper for samplers.sample: {strange}"
    # There is one door, which takes an ODE alone.
    assert [str(file) for file, names in found.items() if "diffeqsolve" in names] == ["samplers/flow.py"]


def test_the_guard_sees_who_would_do_it():
    path = "import diffrax as dfx\nterm = dfx.MultiTerm(dfx.ODETerm(f), dfx.ControlTerm(g, dfx.VirtualBrownianTree()))"
    assert used(path) - ODES == {"MultiTerm", "ControlTerm", "VirtualBrownianTree"}
    assert used("from diffrax import ShARK, ODETerm") - ODES == {"ShARK"}
    assert used("import diffrax._solver.sea") - ODES == {"diffrax._solver.sea"}
    assert used("def solve():\n    from diffrax import ControlTerm as Term") - ODES == {"ControlTerm"}


@pytest.mark.parametrize("solver", [diffrax.ShARK(), diffrax.SRA1(), diffrax.ItoMilstein(), diffrax.EulerHeun()])
def test_our_doors_refuse_the_solvers_of_sdes(solver):
    with pytest.raises(InputError, match=rf"got the solver {type(solver).__name__}.*samplers for SDEs"):
        samplers.flow(processes.vp(), lambda x, t: x, jnp.zeros(2), solver=solver)


@pytest.mark.filterwarnings("ignore")
def test_diffrax_is_still_wrong_backwards(key):
    """The reason of the guard: VP's reverse SDE of data N(0, 1/4), whose samples must have that variance. When a
    release has it right the guard may go."""
    p = processes.vp()
    oracle = gaussian(p, 0.0, 0.25)
    late, early, n = 1.0, 1e-3, 64

    def drift(t, x, _):
        f, g2 = p.sde(t)
        return f * x - g2 * p.score(x, oracle.denoise(x, t), t)

    def spread(t, x, _):
        return jnp.sqrt(p.sde(t)[1])

    def forward(tau, x, _):
        return -drift(late - tau, x, None)

    def forward_spread(tau, x, _):
        return spread(late - tau, x, None)

    def variance(drift, spread, begin, end):
        def one(key):
            path = diffrax.UnsafeBrownianPath((), jax.random.fold_in(key, 1), diffrax.SpaceTimeLevyArea)
            terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(spread, path))
            return diffrax.diffeqsolve(
                terms, diffrax.ShARK(), begin, end, (end - begin) / n, jax.random.normal(key),
                adjoint=diffrax.ForwardMode(),
            ).ys[0]  # fmt: skip

        return float(np.var(jax.jit(jax.vmap(one))(jax.random.split(key, 512))))

    right = variance(forward, forward_spread, 0.0, late - early)
    assert abs(right - 0.25) < 5 * 0.25 * np.sqrt(2 / 512) + 0.01
    wrong = variance(drift, spread, late, early)
    if abs(wrong - 0.25) < 0.1:
        pytest.skip(f"diffrax {diffrax.__version__} walks SDEs backwards rightly: the guard may go")
    assert wrong > 10
