"""Nothing in a network's file is ever run: hostile files are refused by the name of what they ask for, damaged ones by
one sentence, and honest ones are read to the bit."""

import io
import pickle
import struct
import sys
from pathlib import Path

import crafting
import numpy as np
import pytest
from golden_networks import GOLDEN, OPTIONS, golden

from jaxdiff.errors import InputError
from jaxdiff.pretrained import edm_pickle
from jaxdiff.pretrained.pickles import Made, Name, read

pytestmark = pytest.mark.claim("no code in a checkpoint is run: 23 hostile files")


TORCH = [GOLDEN / "torch_structure_2.pkl", GOLDEN / "torch_structure_4.pkl"]


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module, name, *arguments):
    """The instructions of a call module.name(*arguments), strings."""
    return text(module) + text(name) + b"\x93" + b"(" + b"".join(map(text, arguments)) + b"tR"


class Reduced:
    """What `pickle` writes as a call."""

    def __init__(self, function, *args):
        self.made = function, args

    def __reduce__(self):
        return self.made


def hostile(canary):
    """name -> (file content, what the sentence must name). Each that is marked runs in `pickle` itself."""
    touch = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w').close()"
    top = b"\x80\x04"
    return {
        "os.system, protocol 0": (f"cos\nsystem\n(S'{touch}'\ntR.".encode(), "os.system"),
        "posix.system": (top + call("posix", "system", touch) + b".", "posix.system"),
        "eval": (top + call("builtins", "eval", write) + b".", "builtins.eval"),
        "exec": (pickle.dumps(Reduced(exec, write)), "builtins.exec"),
        "old eval": (f"c__builtin__\neval\n(S{write!r}\ntR.".encode(), "__builtin__.eval"),
        "open": (pickle.dumps(Reduced(open, str(canary), "w")), "open"),
        "subprocess": (top + call("subprocess", "getoutput", touch) + b".", "subprocess.getoutput"),
        "import": (top + call("importlib", "import_module", "antigravity") + b".", "importlib.import_module"),
        "getattr": (pickle.dumps(Reduced(getattr, "", "join")), "builtins.getattr"),
        "pickle in pickle": (
            pickle.dumps(Reduced(pickle.loads, pickle.dumps(Reduced(exec, write)))),
            "_pickle.loads",
        ),
        "INST": (f"(S'{touch}'\nios\nsystem\n.".encode(), "INST"),
        "OBJ": (b"(" + text("os") + text("system") + b"\x93" + text(touch) + b"o.", "os.system"),
        "extension registry": (b"\x80\x02\x82\x01.", "EXT1"),
        "persistent id": (b"Pos.system\n.", "PERSID"),
        "a dotted name": (
            top + text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
            "torch._utils._rebuild_tensor_v2.__globals__",
        ),
        "in an option": (crafting.dump({"ema": {"deep": [Reduced(exec, write)]}}), "builtins.exec"),
        "in a network's state": (
            crafting.snapshot("EDMPrecond", {"dropout": Reduced(eval, write)}, {}),
            "builtins.eval",
        ),
        "as a module": (crafting.dump({"ema": crafting.persistent("EDMPrecond", Reduced(exec, write))}), "exec"),
        "in a tensor's storage": (
            crafting.dump(
                {
                    "ema": crafting.persistent(
                        "EDMPrecond",
                        {
                            "_init_kwargs": {},
                            "_parameters": {
                                "w": crafting.Call(
                                    crafting.REBUILD,
                                    crafting.Call(crafting.LOAD, pickle.dumps(Reduced(exec, write))),
                                    0,
                                    (1,),
                                    (1,),
                                )
                            },
                        },
                    )
                }
            ),
            "builtins.exec",
        ),
        "a state for a function": (
            top + text("torch._utils") + text("_rebuild_tensor_v2") + b"\x93" + b"}" + text("__call__")
            + call("builtins", "eval", write) + b"sb.",
            "builtins.eval",
        ),
        "in the loss beside the network": (
            crafting.snapshot("EDMPrecond", {}, {}, loss_fn=Reduced(exec, write)),
            "builtins.exec",
        ),
        "a class to be made": (
            top + text("subprocess") + text("Popen") + b"\x93(" + text(touch) + b"t\x81.",
            "subprocess.Popen",
        ),
        "eval as the unpickler's memory": (
            top + text("builtins") + b"\x94" + text("eval") + b"\x94h\x00h\x01\x93(" + text(write) + b"tR.",
            "builtins.eval",
        ),
    }  # fmt: skip


RUN_BY_PICKLE = ("os.system, protocol 0", "posix.system", "eval", "exec", "old eval", "pickle in pickle")


@pytest.mark.parametrize("name", hostile(Path("canary")))
def test_a_hostile_file_is_refused_by_name_and_nothing_runs(name, tmp_path):
    canary, file = tmp_path / "canary", tmp_path / "network.pkl"
    content, named = hostile(canary)[name]
    file.write_bytes(content)
    modules = set(sys.modules)
    with pytest.raises(InputError) as error:
        edm_pickle.load(file)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert not canary.exists()
    assert set(sys.modules) == modules  # nothing was imported either


@pytest.mark.parametrize("name", RUN_BY_PICKLE)
def test_the_hostile_files_are_real(name, tmp_path):
    """`pickle` does what they ask for: what the test above looks for can be found."""
    canary = tmp_path / "canary"
    pickle.loads(hostile(canary)[name][0])
    assert canary.exists()


def test_at_least_twelve_hostile_files_are_tried():
    assert len(hostile(Path("canary"))) >= 12


def test_source_that_a_file_carries_is_not_run(tmp_path):
    """Every one of EDM's own modules comes with the text of a program; here it would end the test run."""
    file = tmp_path / "network.pkl"
    file.write_bytes(crafting.snapshot("EDMPrecond", {"img_resolution": 8}, {"model.w": np.ones(3, np.float32)}))
    assert b"raise SystemExit" in file.read_bytes()
    assert edm_pickle.load(file).init_kwargs == {"img_resolution": 8}


@pytest.mark.parametrize("path", TORCH, ids=lambda path: path.stem)
def test_what_pytorch_wrote_is_read_to_the_bit(path):
    """Files that PyTorch 2.13 wrote, of EDM's structure: views, half precision, shared storages, hidden buffers."""
    found = edm_pickle.load(path)
    base = np.arange(10, dtype=np.float32)
    thirds = (base / 3).view(np.uint32)
    rounded = (thirds + 0x7FFF + ((thirds >> 16) & 1)) & 0xFFFF0000  # to nearest even, as bfloat16 is
    expected = {
        "model.halves": base[2:8:2].astype(np.float16),
        "model.brain": rounded.astype(np.uint32).view(np.float32),
        "model.whole": np.array([1, -(2**40)]),
        "model.scalar": np.float32(2.5),
        "model.empty": np.zeros((0, 3), np.float32),
        "model.view_a": base[3:],
        "model.view_b": base[:4],
        "model.enc.8x8_conv.weight": np.arange(12, dtype=np.float32).reshape(2, 2, 3).transpose(2, 0, 1),
        "model.enc.8x8_conv.resample_filter": np.full((1, 1, 2, 2), 0.25),
        "model.enc.8x8_block0.weight": np.arange(3, dtype=np.float32).reshape(1, 1, 3).transpose(2, 0, 1),
        "model.enc.8x8_block0.resample_filter": np.full((1, 1, 2, 2), 0.25),
    }
    assert found.arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert found.arrays[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)
    assert found.class_name == "EDMPrecond"
    assert found.init_kwargs == {
        "img_resolution": 8,
        "img_channels": 3,
        "label_dim": 10,
        "model_type": "SongUNet",
        "channel_mult": [1, 2],
        "init": {"w": 0.2**0.5},
        "resample_filter": [1, 1],
        "dropout": 0.13,
    }


def test_a_whole_network_is_read_to_the_bit(tmp_path):
    weights, _ = golden("ncsnpp")
    file = tmp_path / "network.pkl"
    file.write_bytes(crafting.snapshot("EDMPrecond", OPTIONS["ncsnpp"] | {"sigma_max": float("inf")}, weights))
    found = edm_pickle.load(file)
    assert found.init_kwargs == OPTIONS["ncsnpp"] | {"sigma_max": float("inf")}
    assert found.arrays.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


def test_a_file_cut_short_anywhere_is_one_sentence(tmp_path):
    content, file = TORCH[1].read_bytes(), tmp_path / "network.pkl"
    for length in range(0, len(content), 61):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=str(file)) as error:
            edm_pickle.load(file)
        assert "\n" not in str(error.value)


def test_a_damaged_file_is_read_or_refused_but_never_run(tmp_path):
    content, file, rng = TORCH[0].read_bytes(), tmp_path / "network.pkl", np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(0, 256)
        file.write_bytes(damaged)
        try:
            edm_pickle.load(file)
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"net": 1}, "has no 'ema', only net: it is no network snapshot"),
        ([1], "holds a list where the whole should be"),
        ({"ema": 3}, "holds a int where its network should be"),
        ({"ema": crafting.persistent(7, {})}, "where its network should be"),
        ({"ema": crafting.persistent("X", [1])}, "holds a list where the network's state should be"),
        ({"ema": crafting.persistent("X", {"_init_kwargs": {"a": b"x"}})}, "an option that is a bytes"),
        ({"ema": crafting.persistent("X", {"_parameters": {"w": 3}})}, "a int in the place of a tensor"),
        ({"ema": crafting.persistent("X", {"_modules": {"m": 3}})}, "where m should be"),
    ],
)
def test_another_structure_is_one_sentence(content, sentence, tmp_path):
    file = tmp_path / "network.pkl"
    file.write_bytes(crafting.dump(content))
    with pytest.raises(InputError, match=sentence):
        edm_pickle.load(file)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    """Sizes that a crafted file claims would fill the memory, or read beyond what is there."""
    values = crafting.storage(np.ones(4, np.float32))
    for offset, size, stride in ((0, (2**36,), (0,)), (0, (2, 3), (3, 1)), (3, (2,), (1,)), (0, (2,), (-1,))):
        made = crafting.Call(crafting.REBUILD, crafting.Call(crafting.LOAD, values), offset, size, stride, False)
        file = tmp_path / "network.pkl"
        file.write_bytes(crafting.dump({"ema": crafting.persistent("X", {"_parameters": {"w": made}})}))
        with pytest.raises(InputError, match="a tensor of size"):
            edm_pickle.load(file)


def test_values_without_end_are_refused(tmp_path):
    loop = []
    loop.append(loop)
    many = "x"
    for _ in range(40):
        many = [many, many]  # 2^40 values in a file of a few hundred bytes
    for option in (loop, many):
        file = tmp_path / "network.pkl"
        file.write_bytes(crafting.dump({"ema": crafting.persistent("X", {"_init_kwargs": {"a": option}})}))
        with pytest.raises(InputError, match=r"without end|is no network of EDM"):
            edm_pickle.load(file)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing\.pkl; give an EDM network"):
        edm_pickle.load(tmp_path / "nothing.pkl")


def test_plain_values_are_those_of_pickle():
    """Every container, number and string of the protocols, against `pickle` itself."""
    value = {
        "a": [1, -1, 2**70, 1.5, True, None, "é", b"\x00\xff", bytearray(b"x"), (), (1,), (1, 2), (1, 2, 3), (1,) * 9],
        ("k", 2): {1, 2},
        3: frozenset([4]),
        "same": [[]] * 2,
    }
    for protocol in (5, 4):
        if protocol == 4:  # where it is a call
            value["a"].remove(bytearray(b"x"))
        content = pickle.dumps(value, protocol=protocol)
        assert read(io.BytesIO(content), (), "it") == pickle.loads(content)
    for protocol in range(4):  # sets and bytes are calls there
        plain = {"a": value["a"][:7] + value["a"][8:], "b": "x" * 300}
        content = pickle.dumps(plain, protocol=protocol)
        assert read(io.BytesIO(content), (), "it") == pickle.loads(content)


def test_a_known_name_is_a_record():
    made = read(io.BytesIO(pickle.dumps(Reduced(exec, "1"))), {Name("builtins", "exec")}, "it")
    assert isinstance(made, Made)
    assert (made.name, made.args, str(made.name)) == (Name("builtins", "exec"), ("1",), "builtins.exec")
