"""Models of a config with parameters of the test's own, and runs that stand in for trained ones."""

from pathlib import Path

from jaxdiff import domains
from jaxdiff.recipes import images, sequences
from jaxdiff.runs.model import Run


def image_run(config, params=None, data=None):
    """A run of images that was not trained, on its config's data or on `data`, (train, held_out)."""
    config = images.complete(config)
    data = images.experiment.read(config) if data is None else data
    domain = domains.of(data[0])
    made = images.model.architecture(config, domain)
    params = made.parameters() if params is None else params
    return Run(Path("run"), config, images.model.model(config, made, params, domain), 0, lambda: data, images.load)


def sequence_run(config, params=None, folder=Path("run")):
    """The same of sequences."""
    config = sequences.complete(config)
    data = sequences.experiment.read(config)
    domain = domains.of(data[0])
    kind = sequences.experiment.architecture(config, domain)
    made = sequences.model.model(kind, config=config, domain=domain, params=params, folder=folder)
    return Run(folder, config, made, 0, lambda: data, sequences.load)
