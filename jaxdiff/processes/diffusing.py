"""What a linear SDE is to whoever walks it, whatever its coefficients: scalars (`Gaussian`) or matrices (`Linear`)."""

from typing import Protocol, runtime_checkable

from jaxdiff.types import Belief, State, Time


@runtime_checkable
class Diffusing(Protocol):
    """dx = drift(x, t) dt + diffuse(dW, t), with a score that is affine in the belief E[x0 | x_t].

    `diffuse` applies the symmetric square root G of the diffusion matrix, so G G' z is `diffuse` twice. The reverse
    SDEs and the probability flow are made of these three: dx/dt = drift - G G' score / 2."""

    def drift(self, x: State, t: Time) -> State: ...
    def diffuse(self, z: State, t: Time) -> State: ...
    def score(self, x: State, belief: Belief, t: Time) -> State: ...


@runtime_checkable
class Augmented(Protocol):
    """A process whose states hold more than the data: data(x) is the part of them that a belief is about."""

    def data(self, x: State) -> State: ...
