# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# The tangent kernel of a recurrent network on real sequences: in the limit of infinite width, at
# finite width, its smallest eigenvalue, and what kernel regression with it predicts.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import rnntk

# Small eigenvalues need double precision; the kernel has the dtype of the data.
jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Data and network
#
# Each handwritten digit is an image of 8 rows of 8 pixels. The network reads it row by row: a
# sequence of 8 steps with tokens of size 8. Its output is read off the last hidden state.

# %%
train, test = rnntk.datasets.split(rnntk.datasets.digits(), 200)
x = jnp.asarray(train.x)
rnn = rnntk.ElmanRNN(activation="relu", readout="last")
x.shape

# %% [markdown]
# ## Infinite width
#
# `infinite_kernel` returns two matrices over all pairs of sequences: the tangent kernel `ntk` and
# the covariance of the outputs of random networks, `nngp`.

# %%
limit = rnntk.infinite_kernel(rnn, x)
limit.ntk.shape, limit.nngp.shape

# %% [markdown]
# ## Finite width
#
# The kernel of one random network deviates from the limit. The theory says that the deviation falls
# like the width to the power -1/2. It is heavy-tailed, as one factor of the scale enters for each
# step, so we average and fit its logarithm.

# %%
widths, seeds = [64, 256, 1024], 6
deviations = np.zeros((len(widths), seeds))
for i, width in enumerate(widths):
    for j, key in enumerate(jax.random.split(jax.random.key(width), seeds)):
        params = rnn.init(key, input_dim=x.shape[2], width=width)
        kernel = rnntk.empirical_kernel(rnn, params, x)
        difference = jnp.linalg.norm(kernel.ntk - limit.ntk)
        deviations[i, j] = difference / jnp.linalg.norm(limit.ntk)

log_means = np.log(deviations).mean(axis=1)
slope = float(np.polyfit(np.log(widths), log_means, 1)[0])
for width, deviation in zip(widths, np.exp(log_means), strict=True):
    print(f"width {width:4d}: relative deviation {deviation:.3f}")
print(f"fitted slope {slope:.2f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
rnntk.plot.width_convergence(widths, {"NTK": deviations}, slopes={"NTK": slope}, ax=axes)
plt.show()

# %% [markdown]
# ## The smallest eigenvalue
#
# It governs how fast training converges. It comes with an interval that contains the smallest
# eigenvalue of the matrix as given, whatever the rounding of the solver, and with bounds from the
# theory.

# %%
smallest = rnntk.spectrum.min_eigenvalue(limit.ntk)
print(f"smallest eigenvalue {smallest.value:.6g}")
print(f"width of its interval {smallest.upper - smallest.lower:.1e}")
print("resolved beyond rounding:", smallest.resolved)

bounds = rnntk.bounds.min_eigenvalue(rnn, x)
for name, value in bounds.lower.items():
    print(f"lower bound {value:8.3g}  {name}")
for name, value in bounds.upper.items():
    print(f"upper bound {value:8.3g}  {name}")

# %% [markdown]
# ## Kernel regression
#
# One output for each of the ten digits, trained to 1 for the right one and 0 for the others. The
# predicted digit is the one with the largest output.

# %%
targets = np.eye(10)[train.y]
regression = rnntk.predict.KernelRegression(limit.ntk, targets, ridge=1e-3)
cross = rnntk.infinite_kernel(rnn, jnp.asarray(test.x), x).ntk
predicted = regression.predict(cross).argmax(axis=1)
print(f"accuracy on {len(test)} test images: {np.mean(predicted == test.y):.3f}")
