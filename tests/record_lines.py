"""The command lines that `record` runs: each recipe trains, goes on, draws, is measured and reported, with networks so
small that all of it takes minutes."""

from typing import NamedTuple


class Line(NamedTuple):
    """A command line, and the exit code that it should have."""

    name: str
    words: list[str]
    code: int = 0


def train(name: str, config: str, *changes: str) -> Line:
    """Train configs/`config`.py in the folder `name`, its first word."""
    words = [f"--config=configs/{config}.py", f"--workdir={name.split()[0]}"]
    return Line(f"train {name}", ["train", *words, *(f"--config.{change}" for change in changes)])


def on(command: str, folder: str, *flags: str, code: int = 0) -> Line:
    """Another command on that folder."""
    return Line(" ".join((command, folder, *flags)), [command, f"--workdir={folder}", *flags], code)


SHORT = ("train.steps=20", "train.batch_size=16", "train.save_every=10", "train.log_every=5")
MEASURED = ("evaluate.samples=24", "likelihood.draws=2", "likelihood.times=4")
IMAGES = (
    *SHORT,
    *MEASURED,
    "network={'name':'UNet','width':8,'multipliers':(1,2),'blocks':1,'attention':(1,),'head':8}",
    "evaluate.curve=(3,)",
    "evaluate.components=6",
    "sample.sampler={'name':'edm','steps':4}",
    "likelihood.images=8",
    "likelihood.rtol=0.01",
    "likelihood.atol=0.01",
    "theory.images=16",
    "theory.levels=3",
    "theory.draws=8",
)
VDM = (
    "process={'name':'learned','hidden':4}",
    "row={'name':'noise'}",
    "loss={'name':'vdm'}",
    "times={'name':'lattice_times','low':0.0}",
    "network={'name':'MLP','hidden':8,'depth':1}",
    "evaluate.curve=()",
)
EDM2 = (
    *IMAGES,
    "data={'name':'digits'}",
    "network={'name':'edm2','width':8,'multipliers':(1,),'blocks':1,'attention':(),'head':8}",
    "evaluate.curve=()",
    "train.warmup=32",
    "train.snapshot_every=64",
)
TOKENS = (
    *SHORT,
    *MEASURED,
    "network={'name':'TokenDiT','width':16,'depth':1,'heads':2,'cond_dim':8}",
    "sample.sampler={'name':'ancestral','steps':6}",
    "likelihood.sequences=6",
    "train.ema_half_life=64",
)
MOLECULES = (
    *TOKENS,
    "data={'name':'smiles','path':'qm9.smi','length':24,'label':'qed'}",
    "held_out=8",
    "train.batch_size=8",
    "evaluate.samples=8",
    "evaluate.guidance=(2.0,)",
)
TEXT = (*TOKENS, "data={'name':'text','path':'letters.txt','length':32}", "held_out=8")

GROUPS = {
    "images": [
        train("images", "digits", *IMAGES),
        train("images to 30", "digits", *IMAGES, "train.steps=30"),
        on("sample", "images", "--n=6", "--labels=3,5", "--guidance=2", "--seed=7", "--out=guided.npz"),
        on("sample", "images", "--n=20"),
        on("sample", "images", "--n=5", "--sampler=dpmpp_2m_sde", "--steps=3", "--out=images/sde.png"),
        on("evaluate", "images"),
        on("evaluate", "images", "--likelihood", "--n=6"),
        on("evaluate", "images", "--theory", "--n=12"),
        Line("statistics", ["statistics", "--data=digits", "--out=digits.npz"]),
        on("evaluate", "images", "--reference=digits.npz", "--n=80", "--seeds=2"),
        on("report", "images"),
        on("sample", "images", "--labels=10", code=2),
        on("sample", "images", "--steering=nos", code=2),
        on("evaluate", "images", "--draws=3", code=2),
    ],
    "vdm": [  # a learned schedule
        train("vdm", "digits", *IMAGES, *VDM),
        on("sample", "vdm", "--n=4", "--out=vdm/x.npz"),
        on("evaluate", "vdm", "--likelihood", "--n=4"),
    ],
    "edm2": [  # learned uncertainty, several averages, and a weaker model as a guide
        train("edm2", "mnist_edm2", *EDM2),
        train("weak", "mnist_edm2", *EDM2, "train.steps=5"),
        on("sample", "edm2", "--n=4", "--ema_width=0.07", "--out=edm2/width.npz"),
        on("sample", "edm2", "--n=4", "--guide=weak", "--guidance=2", "--out=edm2/guided.npz"),
    ],
    "converted": [  # another project's network
        Line("convert", ["convert", "edm", "network.pkl", "converted"]),
        on("sample", "converted", "--n=3", "--steps=3", "--seed=7", "--out=converted/x.npz"),
        on("evaluate", "converted", code=2),
    ],
    "tokens": [  # of images, and a judge that steers them
        train("tokens", "digit_tokens", *TOKENS),
        train("judge", "digit_tokens", *TOKENS, "model={'name':'classifier','reads':'noisy'}"),
        on("sample", "tokens", "--n=5", "--guidance=2", "--out=tokens/x.npz"),
        on("sample", "tokens", "--n=4", "--guide=judge", "--guidance=3", "--labels=3,5", "--out=tokens/steered.npz"),
        on("sample", "tokens", "--n=4", "--sampler=tau_leaping", "--steps=5", "--out=tokens/x.png"),
        on("evaluate", "tokens"),
        on("evaluate", "tokens", "--likelihood", "--n=5", "--draws=2"),
        on("report", "tokens"),
        on("evaluate", "judge"),
        on("report", "judge"),
        on("sample", "judge", code=2),
        on("evaluate", "tokens", "--theory", code=2),
    ],
    "text": [  # token by token
        train("text", "text", *TEXT, "model={'name':'autoregressive'}"),
        on("sample", "text", "--n=3"),
        on("evaluate", "text"),
        on("evaluate", "text", "--likelihood", "--n=4"),
        on("report", "text"),
    ],
    "molecules": [
        train("molecules", "qm9", *MOLECULES),
        on("sample", "molecules", "--n=4", "--labels=1"),
        on("evaluate", "molecules"),
        on("report", "molecules"),
    ],
    "autoregressive": [  # and a judge of its hidden states
        train("autoregressive", "digit_tokens", *TOKENS, "model={'name':'autoregressive'}"),
        train("hidden", "digit_tokens", *TOKENS, "model={'name':'classifier','reads':'hidden','of':'autoregressive'}"),
        on("sample", "autoregressive", "--n=2", "--guide=hidden", "--guidance=2", "--out=autoregressive/steered.npz"),
    ],
}
"""The lines in their order; each group has a scratch folder of its own, so that groups may run side by side."""
