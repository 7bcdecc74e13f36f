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
# # When is an RNN its kernel?
#
# A wide network that is trained with small steps behaves like kernel regression with its tangent
# kernel: its weights hardly move, so the kernel hardly changes (the *lazy* regime). Where weights
# must move far, the kernel follows the data, and no fixed kernel predicts the network (the *rich*
# regime). Three dials decide:
#
# - the **width** $m$: the kernel at initialization is $O(m^{-1/2})$ from its limit, and it changes
#   less in training the wider the network;
# - the **output scale**, here `v_std`: a small one makes the weights move far for the same labels,
#   at any width (Chizat, Oyallon & Bach 2019);
# - the **step size**: a step near the largest stable one is no gradient flow any more.
#
# `rnntk.compare.with_kernel` trains networks of several widths beside their linearizations, and
# puts gradient flow with the kernels next to them. Step sizes are parts of the largest that is
# stable on the infinite-width kernel, so that they mean the same at every width and scale.

# %%
import warnings

import jax
import matplotlib.pyplot as plt
import numpy as np

import rnntk

widths = [16, 64, 256]
rng = np.random.default_rng(0)
tokens = rng.standard_normal((40, 6, 4)).astype(np.float32) / 2
labels = np.tanh(tokens.mean(axis=1).sum(axis=1))
train, test = slice(0, 24), slice(24, 40)


def compare(v_std=1.0, step_size=0.1, widths=widths, steps=60):
    """Eight networks of each width, trained on the same task."""
    with warnings.catch_warnings():
        # of networks that diverge, which the table has as NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        return rnntk.compare.with_kernel(
            rnntk.ElmanRNN(v_std=v_std),
            jax.random.key(0),
            tokens[train],
            labels[train],
            tokens[test],
            labels[test],
            widths=widths,
            steps=steps,
            seeds=8,
            step_size=step_size,
        )


# %% [markdown]
# ## The lazy regime
#
# Output scale 1, steps of a tenth of the stable one. On the left the training loss of the widest
# networks: they, their linearizations and the flow of their own kernels fall on one curve. On the
# right the distance of their outputs on test sequences to what each prediction says. That to the
# infinite-width kernel falls like $m^{-1/2}$; that to the network's own kernel is smaller.

# %%
lazy = compare()
axes = plt.subplots(ncols=2, figsize=(10, 4), layout="constrained")[1]
rnntk.plot.training(lazy, ax=axes[0])
rnntk.plot.widths(lazy, ax=axes[1])
plt.show()

# %% [markdown]
# What happens to the weights: each group moves less, relative to its size, the wider the network.
# The recurrent weights $W$ move like $m^{-1}$, the others like $m^{-1/2}$, as their numbers say: to
# change the output by $O(1)$, $m^2$ entries have to move by $O(1/m)$ each, and $m$ entries by
# $O(m^{-1/2})$. Few units cross the kink of the ReLU.

# %%
axes = plt.subplots(ncols=2, figsize=(10, 4), layout="constrained")[1]
rnntk.plot.widths(lazy, ["movement_W", "movement_U", "movement_V"], ax=axes[0])
rnntk.plot.widths(lazy, ["kernel_drift", "flipped"], ax=axes[1])
plt.show()

for group, power in (("W", -1.0), ("U", -0.5), ("V", -0.5)):
    assert abs(lazy.slope(f"movement_{group}").value - power) < 0.2

# %% [markdown]
# ## The output scale
#
# The same networks with outputs a hundred times smaller. To fit the same labels the weights have to
# move a hundred times as far: the kernel grows to several times its size and turns to the labels,
# the networks learn in bursts that no kernel predicts, some of the narrow ones diverge, and the
# distance to every prediction falls more slowly with the width, if at all.

# %%
rich = compare(v_std=0.01)
axes = plt.subplots(ncols=2, figsize=(10, 4), layout="constrained")[1]
rnntk.plot.training(rich, ax=axes[0])
rnntk.plot.widths(rich, ax=axes[1])
plt.show()

print("      kernel drift  alignment with labels  test error  that of the kernel")
for name, found in (("lazy", lazy), ("rich", rich)):
    row = [
        np.median(found.column(column)[-1])
        for column in ("kernel_drift", "alignment", "error", "error_infinite")
    ]
    print(f"{name}  {row[0]:12.3f}  {row[1]:21.2f}  {row[2]:10.2f}  {row[3]:18.2f}")

scales = [0.01, 0.1, 1.0]
gaps = [rich, compare(v_std=0.1, widths=widths[-1:]), lazy]
medians = [np.median(found.column("gap_linearized")[-1]) for found in gaps]
axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")[1]
axis.loglog(scales, medians, "o-", color="#0072B2")
axis.set_xlabel("output scale v_std")
axis.set_ylabel("distance to the linearized network")
axis.set_title(f"width {widths[-1]}", fontsize=10)
plt.show()

assert medians[0] > 10 * medians[-1]

# %% [markdown]
# ## The step size
#
# The largest stable step is that of a kernel that stays as it is. Networks of finite width have
# larger kernels, and steps this large change them: a network whose step is too large for its kernel
# moves to where its kernel is smaller, learns nothing sensible, or diverges. Gradient flow says
# nothing about any of this, at any width.

# %%
sizes = [0.1, 0.8, 1.6]
axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")[1]
for size, marker, style in zip(sizes, "osD", ("-", "--", ":"), strict=True):
    # the same time for all
    found = lazy if size == 0.1 else compare(step_size=size, steps=round(6 / size))
    column = found.column("gap_infinite")
    axis.loglog(
        widths,
        np.nanmedian(column, axis=1),
        marker=marker,
        ls=style,
        label=f"{size:g} of the stable step",
    )
axis.set_xlabel("width $m$")
axis.set_xticks(widths, [str(width) for width in widths])
axis.minorticks_off()
axis.set_ylabel("distance to the infinite-width kernel")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# So an RNN is its kernel where all three hold: it is wide, its outputs are not small against the
# labels, and its steps are well below the stable ones. `comparison.table` holds all of these
# numbers, a row for each width, seed and recorded step, as `pandas.DataFrame` takes them, and
# `comparison.save` keeps them.
