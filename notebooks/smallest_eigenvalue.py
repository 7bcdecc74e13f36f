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
# # How small is the smallest eigenvalue?
#
# Proofs of convergence need the smallest eigenvalue of the tangent kernel, and many of them assume
# tokens of small norm to have it positive. Here it is measured for random sequences: against their
# length, their number, their distance and their norm, with and without a fixed first token. Each
# figure shows three things.
#
# - The *value*: of the infinite-width kernel as computed in float64. Where rounding could have made
#   it, it is hollow: not resolved.
# - The *certificate*: crosses at both ends of an interval that is proved to contain the smallest
#   eigenvalue of the exact kernel of these numbers.
# - The *bounds* of the theory, rounded to the safe side.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import rnntk
from rnntk.infinite.preactivations import preactivations

jax.config.update("jax_enable_x64", True)

rnn = rnntk.ElmanRNN(activation="relu", readout="last")
key = jax.random.key(0)


def study(batches, x, label, title):
    """Values, certificates and bounds of all batches, drawn against x."""
    kernels = [np.asarray(rnntk.infinite_kernel(rnn, batch).ntk) for batch in batches]
    smallest = [rnntk.spectrum.min_eigenvalue(kernel) for kernel in kernels]
    certificates = [rnntk.spectrum.certify(rnn, batch) for batch in batches]
    bounds = [rnntk.bounds.min_eigenvalue(rnn, batch, rigorous=True) for batch in batches]
    axes = plt.subplots(figsize=(9, 4.2), layout="constrained")[1]
    rnntk.plot.min_eigenvalue(x, smallest, certificates, bounds, xlabel=label, ax=axes)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(title)
    plt.show()
    for certificate, bound in zip(certificates, bounds, strict=True):
        assert max(bound.lower.values()) <= certificate.upper
        assert min(bound.upper.values()) >= certificate.lower
    traces = np.array([np.trace(kernel) for kernel in kernels])
    return np.array([c.lower for c in certificates]), traces, bounds


def slope(x, y):
    """Exponent of a power law, by least squares in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# %% [markdown]
# ## Length
#
# Twenty sequences of independent tokens of norm 1. Each step adds to the tangent kernel, so that
# the eigenvalue grows. It also grows relative to the trace: n times their ratio would be 1 if the
# kernel were a multiple of the identity.

# %%
lengths = [2, 4, 8, 16, 32]
batches = [rnntk.datasets.unit_tokens(key, 20, t, 4) for t in lengths]
least, traces, bounds = study(batches, lengths, "steps $t$", "Length")
for t, value, trace, bound in zip(lengths, least, traces, bounds, strict=True):
    reached = max(bound.lower.values()) / value
    explicit = bound.lower["separation_time"] / value
    print(
        f"t = {t:2d}: {value:8.3f}, {20 * value / trace:.3f} of the mean eigenvalue; "
        f"best bound {reached:.3f} of it, separation_time {explicit:.3f}"
    )
print(f"slope {slope(lengths, least):.2f} over all lengths")

# %% [markdown]
# ## Number of sequences
#
# With more sequences of a fixed length, two of them come to lie closer together, and the
# eigenvalue falls, slowly.

# %%
sizes = [5, 10, 20, 40, 80]
batches = [rnntk.datasets.unit_tokens(key, n, 6, 4) for n in sizes]
least, traces, bounds = study(batches, sizes, "sequences $n$", "Number of sequences")
print(f"slope {slope(sizes, least):.2f}")

# %% [markdown]
# ## Separation
#
# Ten sequences, and ten more that differ from them by a relative distance. The eigenvalue falls
# linearly in the distance. So does the bound `separation`: it goes with the square root of
# log(1/rho), where rho is the largest correlation of the last pre-activations, and 1 - rho falls
# like the square of the distance. At the smallest distance the float64 matrix knows nothing of the
# eigenvalue any more; the certificate still does. It is left out of the fit, as the tokens
# themselves are rounded there.

# %%
gaps = np.array([1e-14, 1e-12, 1e-9, 1e-6, 1e-3, 1e-1])
base = rnntk.datasets.unit_tokens(key, 10, 6, 4)
other = rnntk.datasets.unit_tokens(jax.random.key(1), 10, 6, 4)
batches = [np.concatenate([base, base + gap * other]) for gap in gaps]
least, _, bounds = study(batches, gaps, "distance of near-duplicates", "Separation")
print(f"slope of the certified eigenvalue {slope(gaps[1:], least[1:]):.4f}")
explicit = np.array([bound.lower["separation"] for bound in bounds])
print(f"slope of the bound separation {slope(gaps[1:], explicit[1:]):.4f}")

# %% [markdown]
# ## Norm, and the fixed first token
#
# Without biases and initial states the kernel is homogeneous: tokens of norm eps instead of 1
# multiply all eigenvalues by the square of eps and leave their ratios as they are. Small norms
# alone make nothing worse.
#
# They matter relative to something fixed. If every sequence starts with the same unit token, and
# the others have norm eps, the sequences become nearly equal. The theory predicts that 1 - rho
# falls like the square of eps, and the smallest eigenvalue relative to the trace linearly in eps.

# %%
norms = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
plain = [eps * rnntk.datasets.unit_tokens(key, 20, 6, 4) for eps in norms]
fixed = [rnntk.datasets.fixed_first_token(key, 20, 6, 4, eps) for eps in norms]
least_plain, trace_plain, _ = study(plain, norms, "norm eps", "All tokens of norm eps")
least_fixed, trace_fixed, _ = study(fixed, norms, "norm eps", "Behind a fixed first token")


# %%
def separation(batch):
    """1 - rho of the last pre-activations, without cancellation."""
    for layers in preactivations(rnn, batch):
        std, angle = np.asarray(layers[-1].std), np.asarray(layers[-1].angle)
    gap = angle / (2 * np.outer(std, std))
    return np.min(gap[~np.eye(len(gap), dtype=bool)])


small = norms <= 0.1
share_plain, share_fixed = 20 * least_plain / trace_plain, 20 * least_fixed / trace_fixed
gaps_fixed = np.array([separation(batch) for batch in fixed])
for name, share in (("all tokens small", share_plain), ("fixed first token", share_fixed)):
    print(f"{name:18s}", *(f"{value:.8f}" for value in share))
print(f"slope of n lmin / trace, all small:   {slope(norms[small], share_plain[small]):+.4f} (0)")
print(f"slope of n lmin / trace, fixed token: {slope(norms[small], share_fixed[small]):+.4f} (1)")
print(f"slope of 1 - rho, fixed token:        {slope(norms[small], gaps_fixed[small]):+.4f} (2)")

# %% [markdown]
# The numbers in brackets are the predictions. The fits take eps up to 0.1, as the fixed token does
# not dominate at eps = 1.

# %%
figure, axes = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
axes.loglog(
    norms, share_plain, "s-", color="0.55", label=r"all tokens small: $n\lambda/\mathrm{tr}$"
)
axes.loglog(norms, share_fixed, "o-", label=r"fixed first token: $n\lambda/\mathrm{tr}$")
axes.loglog(norms, gaps_fixed, "^--", color="black", label=r"fixed first token: $1 - \rho$")
axes.loglog(norms, norms, ":", color="0.3", label="eps")
axes.loglog(norms, norms**2, "-.", color="0.3", lw=0.8, label="eps squared")
axes.set_xlabel("norm eps")
axes.legend(fontsize=8)
axes.set_title("Small norms, relative to nothing and to a fixed token")
plt.show()
