"""What the command line writes, as checksums: recorded before a change and after it, the two must be equal.

    python tests/record.py OUT [group ...]    run the lines, write OUT/record.json and OUT/values.npz
    python tests/record.py --compare A B      a line for each difference, or "equal"; exit code 1 or 0

Each of record_lines.py's runs in its own process, `python -m jaxdiff.cli`, on whatever jaxdiff PYTHONPATH names, in
a scratch folder where all paths are relative. After each, every file that it wrote or changed is described by its kind:
an array by the SHA-256 of its bytes, JSON by its content, a page by its text and its pictures, a folder of checkpoints
by the leaves of the newest. `values.npz` keeps the arrays themselves, so that a difference can be said in numbers.

Left out, as a second recording of the same code does not repeat them:
- what standard error says, and the examples_per_second and seconds_left of log.jsonl: a clock's;
- tensorboard/: its events carry the time of day;
- the bytes of .npz files (their arrays are here) and of Orbax's (their leaves are): both keep the time of writing."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "pretrained")]
import crafting  # noqa: E402
from golden_networks import OPTIONS, golden  # noqa: E402
from record_lines import GROUPS  # noqa: E402

WORKERS = 2
# As tests/conftest.py: programs are small and run once, on four devices.
ENVIRONMENT = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
CLOCK = ("examples_per_second", "seconds_left")


# Recording -----------------------------------------------------------------------------------------------------------


def _now(line):
    print(line, flush=True)


def record(out: Path, groups: Sequence[str] = tuple(GROUPS), say: Callable[[str], Any] = _now) -> list[str]:
    """Run the lines, write out/record.json and out/values.npz, and return a word for each line that ended otherwise
    than it should."""
    root = _root()
    lines, arrays = {}, {}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        for rows, values in pool.map(lambda group: _group(Path(folder), group, root, say), groups):
            lines, arrays = lines | rows, arrays | values
            np.savez_compressed(out / "values.npz", allow_pickle=False, **arrays)
            (out / "record.json").write_text(json.dumps({"made by": _machine(), "lines": lines}, indent=1) + "\n")
    expected = {line.name: line.code for group in groups for line in GROUPS[group]}
    wrong = {name: row for name, row in lines.items() if row["code"] != expected[name]}
    return [f"{name} ended with {row['code']}: {row['stderr'][-1:]}" for name, row in wrong.items()]


def _group(folder, group, root, say):
    """({line: what it wrote}, {place: array}) of the lines of one group."""
    scratch, rows, values = folder / group, {}, {}
    _provide(scratch, root)
    seen = _files(scratch)
    for line in GROUPS[group]:
        start = time.monotonic()
        row = _run(line, scratch, root, folder / f"cache-{group}")
        now = _files(scratch)
        written = sorted(name for name, stamp in now.items() if seen.get(name) != stamp)
        row["outputs"] = _describe(scratch, written, _Keep(values, line.name))
        rows[line.name], seen = row, now
        say(f"{time.monotonic() - start:6.1f} s  {line.name}: {len(row['outputs'])} outputs")
    return rows, values


def _root():
    """The folder that holds jaxdiff and its configs: the code that is recorded, not that of this script."""
    words = [sys.executable, "-c", "import jaxdiff; print(jaxdiff.__file__)"]
    said = subprocess.run(words, check=True, capture_output=True, text=True, cwd=tempfile.gettempdir())
    return Path(said.stdout.strip()).resolve().parents[1]


def _provide(scratch, root):
    """What the lines read: the configs of the code itself, and data that are this script's."""
    scratch.mkdir()
    (scratch / "configs").symlink_to(root / "configs")
    (scratch / "qm9.smi").write_bytes((TESTS / "data" / "files" / "qm9.smi").read_bytes())
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 8))) for _ in range(3000)]
    (scratch / "letters.txt").write_text(" ".join(words))
    weights, _ = golden("ddpmpp")
    (scratch / "network.pkl").write_bytes(crafting.snapshot("EDMPrecond", OPTIONS["ddpmpp"], weights))


def _run(line, scratch, root, cache):
    environment = ENVIRONMENT | os.environ | {"PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    words = [sys.executable, "-m", "jaxdiff.cli", *line.words]
    done = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, text=True)
    said = {"stdout": done.stdout.splitlines()}
    if done.returncode:
        said["stderr"] = done.stderr.splitlines()
    return {"words": line.words, "code": done.returncode} | said


def _files(scratch):
    """The files that are described, with what changes when they are written anew."""
    found = {}
    for path in scratch.rglob("*"):
        name = path.relative_to(scratch)
        if path.is_file() and not {"configs", "tensorboard"} & set(name.parts):
            found[str(name)] = (path.stat().st_mtime_ns, path.stat().st_size)
    return found


def _machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"jaxlib": version("jaxlib"), "numpy": np.__version__, "cpu": model}


# Describing ------------------------------------------------------------------------------------------------------


def _describe(scratch, names, keep):
    """{file: what it holds}; a run's checkpoints are one entry, of the newest."""
    found, states = {}, set()
    for name in names:
        if "checkpoints" in Path(name).parts:
            states.add(name.split("/checkpoints/")[0] + "/checkpoints")
        else:
            path = scratch / name
            found[name] = KINDS.get(path.suffix, _bytes)(path, keep.of(name))
    return found | {name: _state(scratch / name, keep.of(name)) for name in sorted(states)}


class _Keep(NamedTuple):
    """Hashes arrays, and keeps them among `values` by line, file and name."""

    values: dict[str, np.ndarray]
    place: str

    def of(self, name: str) -> "_Keep":
        return _Keep(self.values, f"{self.place}: {name}")

    def arrays(self, named: Any) -> dict[str, str]:
        self.values.update({f"{self.place}: {name}": array for name, array in named.items()})
        return {name: _hashed(array) for name, array in sorted(named.items())}


def _hashed(array):
    array = np.ascontiguousarray(array)
    return f"{array.dtype}{list(array.shape)} {_sha(array.tobytes())}"


def _sha(content):
    return hashlib.sha256(content).hexdigest()


def _bytes(path, keep):
    return _sha(path.read_bytes())


def _npz(path, keep):
    with np.load(path, allow_pickle=False) as file:
        return keep.arrays(dict(file))


def _json(path, keep):
    return json.loads(path.read_text())


def _log(path, keep):
    rows = map(json.loads, path.read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in rows]


def _text(path, keep):
    return path.read_text().splitlines()


def _page(path, keep):
    """The parts in any order, without the pictures; and the pictures in any order."""
    pattern = r"data:[a-z]+/[a-z+]+;base64,[A-Za-z0-9+/=]+"
    page = path.read_text()
    parts = re.split(r"(?=<h2)", re.sub(pattern, "PICTURE", page))
    return {"parts": sorted(parts), "pictures": sorted(_sha(each.encode()) for each in re.findall(pattern, page))}


def _state(folder, keep):
    """The leaves of the newest checkpoint, by Orbax itself, and which steps are kept."""
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        steps = sorted(manager.all_steps())
        items = ocp.args.Composite(state=ocp.args.StandardRestore(), metadata=ocp.args.JsonRestore())
        found: Any = manager.restore(steps[-1], args=items)
    leaves = {name: np.asarray(leaf) for name, leaf in found["state"].items()}
    return {"steps": steps, "metadata": found["metadata"], "leaves": keep.arrays(leaves)}


KINDS = {".npz": _npz, ".json": _json, ".jsonl": _log, ".txt": _text, ".html": _page}


# Comparing -------------------------------------------------------------------------------------------------------


def compare(a: Path, b: Path) -> list[str]:
    """A line for each difference of two records (files, or their folders); of arrays how large it is, where the values
    of both lie beside them."""
    (first, one), (second, two) = map(_read, (a, b))
    found = _differences(first["lines"], second["lines"], ())
    return [f"{': '.join(path)}: {says}{_size(path, one, two)}" for path, says in found]


def _read(path):
    """A record, and the arrays in values.npz (or a file of the record's own name) beside it."""
    path = path / "record.json" if path.is_dir() else path
    beside = (path.with_suffix(".npz"), path.with_name("values.npz"))
    values = next((each for each in beside if each.exists()), None)
    return json.loads(path.read_text()), {} if values is None else np.load(values)


def _differences(a, b, path):
    """(place, what differs) below two trees of plain values."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(key, a.get(key, MISSING), b.get(key, MISSING)) for key in a | b]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(str(i), x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        if a != b or type(a) is not type(b):
            yield path, " -> ".join(_shown(*both) for both in ((a, b), (b, a)))
        return
    for key, x, y in pairs:
        yield from _differences(x, y, (*path, key))


MISSING = "(missing)"


def _shown(value, other):
    """A value in few letters, from where it is another."""
    text, other = (each if isinstance(each, str) else json.dumps(each) for each in (value, other))
    same = next((i for i, (x, y) in enumerate(zip(text, other, strict=False)) if x != y), min(len(text), len(other)))
    start = max(0, same - 20) if len(text) > 80 else 0
    return "..." * (start > 0) + text[start : start + 80] + "..." * (len(text) > start + 80)


def _size(path, one, two):
    """How far the two arrays of a place are from each other."""
    place = ": ".join((path[0], *path[2:3], path[-1]))
    if place not in one or place not in two or one[place].shape != two[place].shape or one[place].dtype.kind in "SU":
        return ""
    x, y = (np.asarray(each[place], np.float64) for each in (one, two))
    return f" (|a - b| to {np.abs(x - y).max():.2g}, |a| to {np.abs(x).max():.2g}, {np.mean(x != y):.1%} of entries)"


def main(words: list[str]) -> int:
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells its options at every start
    if words[:1] == ["--compare"] and len(words) == 3:
        found = compare(Path(words[1]), Path(words[2]))
        print("\n".join(found or ["equal"]))
        return 1 if found else 0
    if not words or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    wrong = record(Path(words[0]), words[1:] or tuple(GROUPS))
    print("\n".join([*wrong, f"wrote {words[0]}/record.json"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
