import zlib
import numpy as np, jax
from jaxdiff import cli
from test_runs import leaves
def test_a(words, tmp_path, capsys, compiled_once):
    out=[]
    for i in range(3):
        assert cli.main(words(tmp_path/str(i),"train.steps=60"))==0
        out.append([zlib.crc32(b) for b in leaves(tmp_path/str(i))[:3]])
        out.append(sorted(p.name[:40] for p in compiled_once.iterdir()))
    with capsys.disabled(): print(*out,sep="\n")
