"""The peers of PyTorch on the benchmark's models: run by `peers.py`, in an environment of its own.

Prints one JSON line for a step: Opacus with hooks, Opacus with ghost norms, and `torch.func`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch
from paired import compared, paired
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

CLASSES = 10
CHECKED = 4  # samples whose norms are compared with those of samples run alone
Batch = tuple[torch.Tensor, ...]


class Recurrent(nn.Module):
    """64 units over 28 steps; Opacus needs a layer of its own in the place of `nn.LSTM`."""

    def __init__(self, kind: type[nn.Module]):
        super().__init__()
        self.lstm, self.head = kind(28, 64, batch_first=True), nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """Four heads of 32, of plain linear layers."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        batch, steps, width = x.shape

        def split(value):
            return value.reshape(batch, steps, self.heads, -1).transpose(1, 2)

        met = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(x)), split(self.v(x)))
        return self.out(met.transpose(1, 2).reshape(batch, steps, width))


class Transformer(nn.Module):
    """Two blocks of width 128 on 64 positions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 128)
        self.norms = nn.ModuleList(nn.LayerNorm(128) for _ in range(4))
        self.attention = nn.ModuleList(Attention(128, 4) for _ in range(2))
        self.up = nn.ModuleList(nn.Linear(128, 256) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(256, 128) for _ in range(2))
        self.head = nn.Linear(128, CLASSES)

    def forward(self, words):
        hidden = self.embedding(words)
        for k in range(2):
            hidden = hidden + self.attention[k](self.norms[2 * k](hidden))
            inner = F.gelu(self.up[k](self.norms[2 * k + 1](hidden)))
            hidden = hidden + self.down[k](inner)
        return self.head(hidden.mean(dim=1))


class VAE(nn.Module):
    """Dense, 784-256-16-256-784; the noise is given with the data."""

    def __init__(self):
        super().__init__()
        self.encoder, self.code = nn.Linear(784, 256), nn.Linear(256, 32)
        self.decoder, self.pixels = nn.Linear(16, 256), nn.Linear(256, 784)

    def forward(self, x, noise):
        mean, log_var = self.code(F.relu(self.encoder(x))).chunk(2, dim=-1)
        latent = mean + torch.exp(0.5 * log_var) * noise
        return torch.cat([self.pixels(F.relu(self.decoder(latent))), mean, log_var], dim=-1)


class ResNet(nn.Module):
    """Three residual blocks of 16 filters with GroupNormalization, on 16 x 16 images."""

    def __init__(self):
        super().__init__()
        self.start, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, CLASSES)
        self.norms = nn.ModuleList(nn.GroupNorm(4, 16) for _ in range(3))
        self.convolutions = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x):
        hidden = self.start(x)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            hidden = hidden + convolution(F.relu(norm(hidden)))
        return self.head(hidden.mean(dim=(2, 3)))


def mlp() -> nn.Module:
    """784-512-512-10."""
    inner = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*inner, nn.Linear(512, CLASSES))


def cnn() -> nn.Module:
    """Two convolutions with pooling, and a dense layer."""
    inner = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
    inner += [nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*inner, nn.Flatten(), nn.Linear(800, CLASSES))


SHAPES = {"MLP": (784,), "CNN": (1, 28, 28), "LSTM": (28, 28), "ResNet": (3, 16, 16)}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "MLP": mlp,
    "CNN": cnn,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "Transformer": Transformer,
    "VAE": VAE,
    "ResNet": ResNet,
}


def batch_for(model: str, size: int) -> tuple[Batch, torch.Tensor]:
    """Random inputs, and targets."""
    torch.manual_seed(0)
    if model == "VAE":
        x = torch.randn(size, 784)
        return (x, torch.randn(size, 16)), x
    labels = torch.randint(0, CLASSES, (size,))
    if model == "Transformer":
        return (torch.randint(0, 1000, (size, 64)),), labels
    return (torch.randn(size, *SHAPES[model]),), labels


def losses(model: str, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One a sample."""
    if model != "VAE":
        return F.cross_entropy(outputs, y, reduction="none")
    pixels, mean, log_var = outputs.split([784, 16, 16], dim=-1)
    divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=-1)
    return (pixels - y).square().sum(dim=-1) + divergence


class Peers:
    """The steps of one model at one batch size; each ends with the norms, where it has them."""

    def __init__(self, name: str, size: int):
        self.name = name
        self.x, self.y = batch_for(name, size)
        self.model = MODELS[name]()
        self.adam = torch.optim.Adam(self.model.parameters())

    def plain(self) -> None:
        """Forward, backward, and the update by Adam."""
        self.adam.zero_grad()
        losses(self.name, self.model(*self.x), self.y).mean().backward()
        self.adam.step()

    def alone(self) -> np.ndarray:
        """The norms of the first samples, each run alone."""
        found = []
        for k in range(CHECKED):
            self.adam.zero_grad()
            outputs = self.model(*(part[k : k + 1] for part in self.x))
            losses(self.name, outputs, self.y[k : k + 1]).sum().backward()
            squares = [p.grad.square().sum() for p in self.model.parameters()]
            found.append(torch.stack(squares).sum().sqrt().item())
        return np.array(found)

    def functional(self, clip: bool) -> Callable[[], torch.Tensor]:
        """`vmap(grad)` over samples."""
        weights = dict(self.model.named_parameters())

        def loss(values, x, y):
            outputs = functional_call(self.model, values, tuple(part[None] for part in x))
            return losses(self.name, outputs, y[None]).sum()

        each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")

        def step() -> torch.Tensor:
            detached = {name: value.detach() for name, value in weights.items()}
            rows = each(detached, self.x, self.y)
            return self._applied([rows[name] for name in weights], clip)

        return step

    def hooks(self, clip: bool) -> Callable[[], torch.Tensor]:
        """Opacus, which keeps every sample's gradient."""
        from opacus import GradSampleModule

        wrapped = GradSampleModule(self._for_opacus(), batch_first=True, loss_reduction="mean")

        def step() -> torch.Tensor:
            self._cleared(wrapped)
            losses(self.name, wrapped(*self.x), self.y).mean().backward()
            return self._applied([p.grad_sample for p in wrapped.parameters()], clip)

        return step

    def ghost(self, clip: bool) -> Callable[[], torch.Tensor]:
        """Opacus' ghost norms; a clipped mean takes a second backward pass."""
        from opacus.grad_sample import GradSampleModuleFastGradientClipping as Ghost

        wrapped = Ghost(
            self._for_opacus(),
            batch_first=True,
            loss_reduction="mean",
            max_grad_norm=1.0,
            use_ghost_clipping=True,
        )

        def step() -> torch.Tensor:
            self._cleared(wrapped)
            each = losses(self.name, wrapped(*self.x), self.y)
            each.mean().backward(retain_graph=clip)
            norms = wrapped.get_norm_sample()
            if clip:
                weights = wrapped.get_clipping_coef()
                self.adam.zero_grad()
                wrapped.disable_hooks()
                (each * weights).mean().backward()
                wrapped.enable_hooks()
            self.adam.step()
            return norms

        return step

    def _for_opacus(self) -> nn.Module:
        """The same model, but for a recurrent layer of Opacus' own."""
        if self.name == "LSTM":
            from opacus.layers import DPLSTM

            self.model = Recurrent(DPLSTM)
        self.adam = torch.optim.Adam(self.model.parameters())
        return self.model

    def _cleared(self, wrapped: nn.Module) -> None:
        self.adam.zero_grad()
        for parameter in wrapped.parameters():
            parameter.grad_sample = None

    def _applied(self, rows: list[torch.Tensor], clip: bool) -> torch.Tensor:
        """Updates by the mean of sample gradients, clipped or not; answers their norms."""
        norms = torch.stack([row.flatten(1).square().sum(dim=1) for row in rows]).sum(dim=0).sqrt()
        weights = torch.clamp(1 / norms, max=1.0) if clip else torch.ones_like(norms)
        for parameter, row in zip(self.model.parameters(), rows, strict=True):
            parameter.grad = torch.tensordot(weights / len(norms), row, dims=1)
        self.adam.step()
        return norms


STEPS = {"Opacus, hooks": "hooks", "Opacus, ghost": "ghost", "torch.func": "functional"}


def measured(name: str, size: int, way: str, rounds: int) -> list[dict]:
    """The records of one peer: norms and clipped mean, each against its own plain step."""
    records = []
    for what, clip in (("norms", False), ("clipped mean", True)):
        plain, peer = Peers(name, size), Peers(name, size)
        step = getattr(peer, STEPS[way])(clip)
        expected = peer.alone()
        found = step()[:CHECKED].detach().numpy()
        error = float(np.max(np.abs(found - expected) / expected))
        seconds = paired({"plain": plain.plain, way: step}, rounds)
        record = compared(seconds[way], seconds["plain"])
        records.append({"step": what, "error": error, **record})
    return records


def main() -> None:
    """One line a record, or one that says why there is none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=list(STEPS))
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("batch", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for record in measured(options.model, options.batch, options.peer, options.rounds):
        print(json.dumps(record))


if __name__ == "__main__":
    main()
