"""What can end a run that was started well: not a mistake of the caller, so not an `InputError`. The command line
prints the sentence and exits with 2; whatever was saved before is still there."""


class RunStopped(RuntimeError):
    """A run ended before its last step; the newest complete checkpoint holds the last good state."""


class NonFiniteLoss(RunStopped):
    """The loss, gradient or update of `step` (from 1) was NaN or infinite; its batch starts at `position`."""

    def __init__(self, step: int, position: int, loss: float, grad_norm: float):
        self.step, self.position = step, position
        super().__init__(
            f"step {step} is not finite (loss {loss:g}, gradient norm {grad_norm:g}; its batch starts at data position "
            f"{position}); its update was not made and nothing after it was saved: lower the learning rate, clip the "
            "gradient, or look at that batch"
        )


class DiskFull(RunStopped):
    """A checkpoint could not be written for want of space; those written before are untouched."""
