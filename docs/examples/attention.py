"""A classifier with attention, written once for every array library, with its own gradients."""

import numpy as np
import numpy as xp  # the array library of the model: this line and no other

import softmaxes as sm


def batch(rows=200, length=6, classes=3):
    """Return padded sequences of tokens, which tokens are valid, and the class of the marked one."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(classes, size=(rows, length))
    lengths = rng.integers(1, length, size=rows, endpoint=True)[:, None]
    marked = np.arange(length) == rng.integers(lengths)
    tokens = np.concatenate([np.eye(classes)[kinds], marked[..., None]], axis=-1)
    tokens += rng.normal(scale=0.2, size=tokens.shape)
    arrays = tokens.astype("float32"), np.arange(length) < lengths, kinds[marked]
    return tuple(map(xp.asarray, arrays))


def gradients(query, weights, tokens, valid, labels):
    """Return the mean loss, and its gradients by the query and by the weights."""
    attention, pull_attention = sm.vjp(sm.softmax, tokens @ query, where=valid)
    context = xp.sum(attention[..., None] * tokens, axis=1)
    losses, pull_losses = sm.vjp(sm.cross_entropy, context @ weights, labels)

    by_logits = pull_losses(xp.ones_like(losses) / losses.shape[0])
    by_attention = xp.sum(tokens * (by_logits @ weights.T)[:, None, :], axis=-1)
    by_query = xp.sum(pull_attention(by_attention)[..., None] * tokens, axis=(0, 1))
    return xp.mean(losses), by_query, context.T @ by_logits


def train(tokens, valid, labels, classes=3, steps=100, rate=5.0):
    """Return the query and the weights that gradient descent finds, and the loss before each step."""
    query = xp.zeros(tokens.shape[-1], dtype=tokens.dtype)
    weights = xp.zeros((tokens.shape[-1], classes), dtype=tokens.dtype)
    losses = []
    for _ in range(steps):
        loss, by_query, by_weights = gradients(query, weights, tokens, valid, labels)
        query, weights = query - rate * by_query, weights - rate * by_weights
        losses.append(float(loss))
    return query, weights, losses


if __name__ == "__main__":
    query, weights, losses = train(*batch())
    print(
        f"{xp.__name__}: loss {losses[0]:.3f}, then {losses[-1]:.3f}, on {type(query).__module__}"
    )
