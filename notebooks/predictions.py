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
# # Fit, tune, compare
#
# The kernel of an infinitely wide recurrent network on a sequence problem: handwritten digits, read
# row by row. We choose the network by the training part alone, look at how accuracy grows with the
# data, whether probabilities mean what they say, and what a Gaussian process is sure of.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

import rnntk

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Data
#
# The first 416 digits to learn from, the last 416 to test: they are by other writers.

# %%
digits = rnntk.datasets.digits()
n = 416
x, y = jnp.asarray(digits.x[:n]), digits.y[:n]
x_test, y_test = jnp.asarray(digits.x[-n:]), digits.y[-n:]
targets = np.eye(10)[y] - 0.1

# %% [markdown]
# ## Tune
#
# For each network one eigendecomposition gives the leave-one-out error at a whole grid of ridges.
# Whichever is least wins. The same for the RBF kernel on the flattened pixels.

# %%
candidates = {}
for activation in ("relu", "erf"):
    for bidirectional in (False, True):
        rnn = rnntk.ElmanRNN(activation, bidirectional=bidirectional)
        train, cross = rnntk.infinite_kernel(rnn, x), rnntk.infinite_kernel(rnn, x_test, x)
        for kind in ("ntk", "nngp"):
            direction = "both ways" if bidirectional else "forward"
            name = f"{activation}, {direction}, {kind.upper()}"
            candidates[name] = (np.asarray(getattr(train, kind)), np.asarray(getattr(cross, kind)))
flat, flat_test = digits.x[:n].reshape(n, -1), digits.x[-n:].reshape(n, -1)
for gamma in (0.03, 0.1, 0.3):
    kernels = rbf_kernel(flat, gamma=gamma), rbf_kernel(flat_test, flat, gamma=gamma)
    candidates[f"RBF, gamma {gamma}"] = kernels

results = {}
for name, (kernel, cross) in candidates.items():
    path = rnntk.predict.ridge_path(kernel, targets)
    model = rnntk.predict.KernelClassifier(kernel, y, ridge=path.best())
    results[name] = path.leave_one_out.min(), np.mean(model.predict(cross) == y_test)
for name, (error, accuracy) in sorted(results.items(), key=lambda item: item[1]):
    print(f"{name:26s} leave-one-out {error:.5f}   test accuracy {accuracy:.4f}")

# %%
networks = {name: result for name, result in results.items() if not name.startswith("RBF")}
best = min(networks, key=networks.get)
kernel, cross = candidates[best]
path = rnntk.predict.ridge_path(kernel, targets)
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
shown = path.resolved
axes.loglog(path.ridges[shown], path.leave_one_out[shown], "o-", color="0.2", ms=4)
axes.set_xlabel("ridge")
axes.set_ylabel("leave-one-out mean squared error")
axes.set_title(best, fontsize=10)
plt.show()

# %% [markdown]
# ## Learning curves
#
# Accuracy on the test part against the number of digits learnt from, the ridge chosen anew each
# time. Mean and range of three random choices.

# %%
sizes = np.array([25, 50, 100, 200, n])
best_rbf = min(set(results) - set(networks), key=results.get)
figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
for name, color, style in ((best, "0.1", "o-"), (best_rbf, "0.55", "s--")):
    train_kernel, test_kernel = candidates[name]
    curve = np.zeros((len(sizes), 3))
    for j in range(3):
        order = np.random.default_rng(j).permutation(n)
        for i, size in enumerate(sizes):
            chosen = order[:size]
            part = train_kernel[np.ix_(chosen, chosen)]
            model = rnntk.predict.KernelClassifier(part, y[chosen])
            curve[i, j] = np.mean(model.predict(test_kernel[:, chosen]) == y_test)
    axes.fill_between(sizes, curve.min(axis=1), curve.max(axis=1), color=color, alpha=0.2, lw=0)
    axes.plot(sizes, curve.mean(axis=1), style, color=color, ms=4, label=name)
axes.set_xscale("log")
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
axes.set_xlabel("training digits")
axes.set_ylabel("test accuracy")
axes.legend()
plt.show()

# %% [markdown]
# ## Calibration
#
# The temperature of the softmax is fitted to digits that were left out one by one. Among test
# digits to whose answer the classifier gives a probability of 80 %, about 80 % should be right.
# They are by other writers, and a little fewer are.

# %%
few = np.arange(200)
model = rnntk.predict.KernelClassifier(kernel[np.ix_(few, few)], y[few])
p = model.probabilities(cross[:, few])
confidence, right = p.max(axis=1), model.classes[p.argmax(axis=1)] == y_test
edges = np.quantile(confidence, np.linspace(0, 1, 9))
group = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, 7)
stated = np.array([confidence[group == g].mean() for g in range(8)])
found = np.array([right[group == g].mean() for g in range(8)])
count = np.bincount(group, minlength=8)
figure, axes = plt.subplots(figsize=(4, 3.8), layout="constrained")
axes.plot([0.2, 1], [0.2, 1], ":", color="0.5", label="as stated")
error = np.sqrt(np.maximum(found * (1 - found), 1e-3) / count)
axes.errorbar(stated, found, 2 * error, fmt="o-", color="0.1", ms=4, label="found")
axes.set_xlabel("probability of the answer")
axes.set_ylabel("share of right answers")
axes.legend()
plt.show()
print(f"mean probability {confidence.mean():.3f}, accuracy {right.mean():.3f}")

# %% [markdown]
# ## A Gaussian process, its hyper-parameters and its band
#
# How much ink do the last three rows hold, given the first five? A regression with noise. The
# standard deviations of the network and the noise maximize the marginal likelihood of 128 digits;
# then the posterior is asked for digits that it has not seen.

# %%
rows, ink = x[:, :5], np.asarray(x[:, 5:].sum(axis=(1, 2)))
centre = ink[:128].mean()
found = rnntk.predict.fit_hyperparameters(
    *(rnntk.ElmanRNN("relu", b_std=0.1), rows[:128], ink[:128] - centre, jax.random.key(0)),
    starts=2,
    iterations=15,
    progress=False,
)
stds = {
    name: round(float(getattr(found.rnn, name)), 3) for name in ("w_std", "u_std", "b_std", "v_std")
}
print(stds, f"noise {found.noise:.3g}", f"log likelihood {found.log_marginal_likelihood:.1f}")

# %%
prior = np.asarray(rnntk.infinite_kernel(found.rnn, rows[:256]).nngp)
process = rnntk.predict.GaussianProcess(prior[:128, :128], ink[:128] - centre, found.noise)
mean = process.mean(prior[128:, :128]) + centre
variance = process.variance(prior[128:, :128], np.diagonal(prior)[128:]) + found.noise
order = np.argsort(mean)
band = 2 * np.sqrt(variance[order])
figure, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
axes.fill_between(
    np.arange(128), mean[order] - band, mean[order] + band, color="0.8", lw=0, label="95 % band"
)
axes.plot(mean[order], color="0.1", label="posterior mean")
axes.plot(ink[128:256][order], ".", color="0.4", ms=4, label="digits")
axes.set_xlabel("new digits, by predicted ink")
axes.set_ylabel("ink of the last three rows")
axes.legend()
plt.show()
within = np.mean(np.abs(ink[128:256] - mean) < 2 * np.sqrt(variance))
print(f"within the band: {within:.2f}")
