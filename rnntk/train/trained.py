"""What training returns."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from rnntk import checks
from rnntk.network.parameters import check_params
from rnntk.train.descent import on_members
from rnntk.train.functions import Centre, Function, Model, model_of, network, outputs
from rnntk.train.gradients import Tree


@dataclass(frozen=True, eq=False)
class Trained:
    """Networks trained from several random initializations; made by :func:`fit`.

    Attributes:
        rnn: the architecture, or its linearization.
        params: trained parameters; every leaf has a leading axis of seeds, in the dtype of the
            training tokens. With ``centre="double"``, a pair of them: the two halves.
        initial_params: the parameters before training, likewise.
        averaged_params: the mean of the parameters after each step, likewise, where wanted.
        losses: the loss of each step before its update, on that step's batch, shape
            (seeds, steps); NaN from the step on at which a network has diverged.
        steps: number of updates made; fewer than asked for where training was interrupted.
        diverged: for each network the number of steps after which it was not finite; -1 if it is.
        recorded: the steps at which metrics were recorded; 0 is before the first update.
        metrics: by name, shape (seeds, number recorded, ...).
        centre: how outputs were made zero at initialization.
    """

    rnn: Function
    params: Tree
    initial_params: Tree
    averaged_params: Tree | None
    losses: Float[np.ndarray, "seeds steps"]
    steps: int
    diverged: Int[np.ndarray, " seeds"]
    recorded: tuple[int, ...]
    metrics: dict[str, np.ndarray]
    centre: Centre

    def predict(
        self,
        x: Float[ArrayLike, "n t d"],
        lengths: Int[ArrayLike, " n"] | None = None,
        *,
        averaged: bool = False,
    ) -> Float[Array, "seeds n o"] | Float[Array, "seeds n t o"]:
        """What each network has learnt: its output, centred as it was in training.

        Args:
            x: tokens.
            lengths: number of steps of each sequence; the rest is padding.
            averaged: of the averaged parameters, instead of the last ones.

        Returns:
            Shape (seeds, n, o), or (seeds, n, t, o) for the ``"sequence"`` readout, zero at
            padded steps; in the dtype of ``x``. NaN for networks that diverged.

        Raises:
            TypeError: for tokens that are not floating point.
            ValueError: for wrong shapes, lengths out of range, NaN or infinity, or averaged
                parameters that were not wanted in training.
            FloatingPointError: if an output of a network that did not diverge overflows.

        Example:
            >>> import jax, jax.numpy as jnp, rnntk
            >>> x, y = jnp.ones((2, 3, 1)), jnp.array([1.0, 1.0])
            >>> trained = rnntk.train.fit(rnntk.ElmanRNN(), jax.random.key(0), x, y, width=16,
            ...                           learning_rate=0.1, steps=20, seeds=3)
            >>> trained.predict(x).shape
            (3, 2, 1)
        """
        x, lengths = checks.check_batch(x, lengths)
        params = self.averaged_params if averaged else self.params
        if params is None:
            raise ValueError("averaged needs parameters of fit(..., average=True).")
        single = params[0] if self.centre == "double" else params
        example = jax.tree.map(lambda leaf: leaf[0], single)
        width = check_params(network(self.rnn), example, x.shape[-1])
        model = model_of(self.rnn, width, x, self.centre)
        members = [
            jax.tree.map(lambda leaf, i=i: leaf[i], (params, self.initial_params))
            for i in range(len(self.diverged))
        ]
        learnt = jnp.stack(on_members(_learnt, (), (model, x, lengths), members))
        good = self.diverged < 0
        if not bool(jnp.isfinite(learnt[good]).all()):
            raise FloatingPointError(f"outputs of the trained networks overflow in {x.dtype}.")
        return learnt


def _learnt(model: Model, x: Array, lengths: Array | None, params: tuple[Tree, Tree]) -> Array:
    """Outputs of the parameters, less those of the initial ones where these were subtracted."""
    last, initial = params
    found = outputs(model, last, initial, x, lengths)
    if model.centre == "subtract":
        found = found - outputs(model, initial, initial, x, lengths)
    return found
