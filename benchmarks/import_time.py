"""`import jaxdiff` with all its function namespaces against `import jax, diffrax`: medians of runs in turns.

Claim: `import jaxdiff` costs under twice `import jax, diffrax`"""

import statistics
import subprocess
import sys
import time

BASE = "import jax, diffrax"
OURS = (
    "import jaxdiff as jd; jd.processes, jd.grids, jd.parameterizations, jd.denoisers, jd.oracles, jd.losses, "
    "jd.samplers, jd.guidance"
)


def seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def main(rounds: int = 5) -> None:
    seconds(OURS)  # compiles the bytecode
    pairs = [(seconds(BASE), seconds(OURS)) for _ in range(rounds)]
    base, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"import jax, diffrax: {base:.2f} s   import jaxdiff and its functions: {ours:.2f} s   ratio {ours / base:.2f}"
    )


if __name__ == "__main__":
    main()
