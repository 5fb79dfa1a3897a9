"""A class-conditional diffusion transformer with its latent space, ready to sample from.

The transformer is `DiTTransformer2DModel` of diffusers (Peebles and Xie, Scalable Diffusion Models
with Transformers, 2023), the latent space that of an `AutoencoderKL`, or the pixels themselves.
Only the models are taken from diffusers: its pipeline guides all channels and drops the learned
variance; our loop is that of the authors (`ops.diffusion`).
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distillhub.errors import PipelineError
from distillhub.models.dit_arch import check_latents, check_side, parse_dit
from distillhub.models.zoo import seeded
from distillhub.ops.diffusion import Posterior, Schedule, guide, posterior
from distillhub.ops.halving import Halving, recomputed

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

CPU_TOKENS = 16_384
"""Tokens per call on a CPU: more do not stay in its cache."""
ACCELERATOR_TOKENS = 131_072
CPU_PIXELS = 4 * 256 * 256
"""Pixels per call of the autoencoder."""
ACCELERATOR_PIXELS = 32 * 256 * 256


class Diffusion:
    """A frozen generator; what `bench.diffusion()` gives.

    Latents are float32 on the device. The transformer itself runs in its own type: bfloat16 on an
    accelerator, float32 on a CPU.
    """

    def __init__(
        self,
        transformer: "DiTTransformer2DModel",
        vae: "AutoencoderKL | None",
        *,
        image_shape: tuple[int, int, int],
        labels: Sequence[int],
        scaling: float = 1.0,
        identity: dict[str, object] | None = None,
        license: str | None = None,  # noqa: A002 - the field's name
        device: torch.device | None = None,
    ) -> None:
        """Join a transformer and its latent space.

        Args:
            transformer: Predicts the noise, with or without its variance.
            vae: None: the latents are the pixels, scaled to [-1, 1].
            image_shape: (C, H, W) of the images.
            labels: The transformer's label of each class of the data set.
            scaling: Factor of the autoencoder's latents.
            identity: What makes this generator unlike others; see `identity`.
            license: Of its weights.
            device: Where it works; None: the CPU.

        Raises:
            ValueError: If transformer, autoencoder, images and labels do not fit together.
        """
        self.device = device or torch.device("cpu")
        narrow = self.device.type != "cpu"
        self._transformer = transformer.eval().requires_grad_(False)
        # diffusers' own `to` warns of modules that must stay float32, of which this one has none.
        nn.Module.to(self._transformer, self.device, torch.bfloat16 if narrow else torch.float32)
        self._vae = None if vae is None else vae.eval().requires_grad_(False).to(self.device)
        config = transformer.config
        side = int(config.sample_size)
        self.latent_shape: tuple[int, int, int] = (int(config.in_channels), side, side)
        self.image_shape = image_shape
        self.null_label = int(config.num_embeds_ada_norm)
        self.labels = tuple(labels)
        self.identity: dict[str, object] = dict(identity or {})
        """Content key: digests of the weights, the scaling; for the keys of resources."""
        self.license = license
        self.scaling = scaling
        out = int(config.out_channels or config.in_channels)
        self.learned_variance = out == 2 * self.latent_shape[0]
        if out not in (self.latent_shape[0], 2 * self.latent_shape[0]):
            raise ValueError(f"{out} output channels for {self.latent_shape[0]} of the latents")
        check_latents(self.latent_shape, image_shape, None if vae is None else _vae_sizes(vae))
        wrong = [label for label in self.labels if not 0 <= label < self.null_label]
        if wrong:
            raise ValueError(f"label {wrong[0]} is not one of 0 .. {self.null_label - 1}")
        cpu = self.device.type == "cpu"
        tokens = (side // int(config.patch_size)) ** 2
        pixels = image_shape[1] * image_shape[2]
        self._rows = Halving(max(1, (CPU_TOKENS if cpu else ACCELERATOR_TOKENS) // (2 * tokens)))
        self._images = Halving(max(1, (CPU_PIXELS if cpu else ACCELERATOR_PIXELS) // pixels))

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of images, [n, c, h, w] float32 on the device.

        In pixel space these are exactly 2 x - 1.

        Args:
            images: [n, C, H, W] in [0, 1], of the shape `image_shape`.
            generator: A CPU generator; latents of an autoencoder are drawn from its posterior with
                it. None: the mode of the posterior.

        Raises:
            ValueError: If the images have another shape.
            PipelineError: If one image alone does not fit into memory.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images {tuple(images.shape[1:])}, wanted {self.image_shape}")
        signed = 2 * images.to(torch.float32) - 1
        vae = self._vae
        if vae is None:
            return signed.to(self.device)
        noise = None
        if generator is not None:
            noise = torch.randn((len(images), *self.latent_shape), generator=generator)

        def work(part: slice) -> Tensor:
            rgb = _with_channels(signed[part].to(self.device), int(vae.config.in_channels))
            law = vae.encode(rgb).latent_dist
            latents: Tensor = law.mean
            if noise is not None:
                latents = latents + law.std * noise[part].to(self.device)
            return latents * self.scaling

        return self._run(self._images, work, len(images))

    def decode(self, latents: Tensor, *, differentiable: bool = False) -> Tensor:
        """Images of latents [n, c, h, w]: [n, C, H, W] float32 in [0, 1] on the device, clamped.

        Args:
            latents: [n, c, h, w].
            differentiable: Whether the images get a gradient for the latents; the way back decodes
                again, so that it takes the memory of one part.

        Raises:
            PipelineError: If one image alone does not fit into memory.
        """
        latents = latents.to(self.device, torch.float32)
        vae = self._vae

        def work(rows: Tensor, part: slice) -> Tensor:
            del part
            made: Tensor = rows if vae is None else vae.decode(rows / self.scaling).sample
            return ((_with_channels(made, self.image_shape[0]) + 1) / 2).clamp(0, 1)

        return self._of_rows(self._images, work, latents, differentiable=differentiable)

    def predict(
        self,
        z: Tensor,
        labels: Tensor,
        index: int,
        schedule: Schedule,
        *,
        cfg: float,
        cfg_channels: int,
        differentiable: bool = False,
    ) -> Posterior:
        """The step from level `index` down, with guidance.

        Each sample and its unconditional twin go through the transformer in one call.

        Args:
            z: Latents, [n, c, h, w] float32 on the device.
            labels: [n] int64: labels of the transformer, see `labels`.
            index: Step of `schedule`.
            schedule: The levels.
            cfg: Scale of the guidance; 1 is none.
            cfg_channels: Channels that are guided; more than there are means all.
            differentiable: Whether the result has a gradient for `z`; the way back runs the
                transformer again, so that it takes the memory of one part.

        Raises:
            PipelineError: If one sample alone does not fit into memory.
        """
        tau = int(schedule.timesteps[index])
        labels = labels.to(self.device)
        z = z if differentiable else z.detach()

        def work(rows: Tensor, part: slice) -> Tensor:
            known = labels[part]
            if cfg == 1:
                return self._call(rows, known, tau)
            both = torch.cat([known, torch.full_like(known, self.null_label)])
            with_label, without = self._call(torch.cat([rows, rows]), both, tau).chunk(2)
            c = self.latent_shape[0]
            eps = guide(with_label[:, :c], without[:, :c], cfg, min(cfg_channels, c))
            return torch.cat([eps, with_label[:, c:]], dim=1)

        out = self._of_rows(self._rows, work, z, differentiable=differentiable)
        c = self.latent_shape[0]
        v = out[:, c:] if self.learned_variance else None
        return posterior(z, out[:, :c], v, index, schedule)

    def _call(self, z: Tensor, labels: Tensor, tau: int) -> Tensor:
        """The transformer's output for rows of one timestep, float32."""
        out = self._transformer(
            z.to(self._transformer.dtype),
            timestep=torch.full_like(labels, tau),
            class_labels=labels,
            return_dict=False,
        )[0]
        wide: Tensor = out.float()
        return wide

    def _of_rows(self, parts: Halving, work: Any, rows: Tensor, *, differentiable: bool) -> Tensor:
        """`work(rows, where they lie)` part by part, with a gradient for the rows where asked."""
        if differentiable:
            return recomputed(work, rows, partial(self._run, parts))
        with torch.no_grad():
            return self._run(parts, lambda part: work(rows[part], part), len(rows))

    def _run(self, parts: Halving, work: Any, total: int) -> Tensor:
        try:
            return parts.run(work, total)
        except torch.OutOfMemoryError as error:
            raise PipelineError(
                f"one image alone does not fit into the memory of {self.device}",
                where="generator",
                mend="use a device with more memory, or a smaller generator",
            ) from error


def build_transformer(
    arch: str,
    *,
    num_classes: int,
    channels: int,
    height: int,
    width: int,
    seed: int,
    learned_variance: bool = True,
) -> "DiTTransformer2DModel":
    """A fresh transformer on the CPU; the same seed gives the same weights.

    Initialised much as in the authors' code: adaptive norms and the last layer are 0, so that each
    block begins as the identity.

    Args:
        arch: Name as in `parse_dit`.
        num_classes: The label after the last one means "no class".
        channels: Of the latents.
        height: Of the latents.
        width: Of the latents, equal to `height`.
        seed: Of the weights.
        learned_variance: Whether the output has as many channels again for the variance.

    Raises:
        ValueError: If the name is unknown or the latents do not fit it.
    """
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    sizes = parse_dit(arch)
    check_side(sizes, height, width)
    with seeded(seed):
        net = DiTTransformer2DModel(
            num_attention_heads=sizes.heads,
            attention_head_dim=sizes.width // sizes.heads,
            in_channels=channels,
            out_channels=2 * channels if learned_variance else channels,
            num_layers=sizes.depth,
            sample_size=height,
            patch_size=sizes.patch,
            num_embeds_ada_norm=num_classes,
        )
        _initialize(net)
    return net


def build_generator(
    arch: str,
    num_classes: int,
    channels: int,
    height: int,
    width: int,
    seed: int,
    *,
    learned_variance: bool = True,
    device: torch.device | None = None,
) -> Diffusion:
    """A generator of fresh weights in pixel space, e.g. for tests; its output is not trained.

    The last layers get small random weights in place of zeros, so that it predicts something.

    Raises:
        ValueError: If the name is unknown or the images do not fit it.
    """
    net = build_transformer(
        arch,
        num_classes=num_classes,
        channels=channels,
        height=height,
        width=width,
        seed=seed,
        learned_variance=learned_variance,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return Diffusion(
        net,
        None,
        image_shape=(channels, height, width),
        labels=range(num_classes),
        identity={"arch": arch, "seed": seed, "variance": learned_variance},
        device=device,
    )


@torch.no_grad()
def _initialize(net: "DiTTransformer2DModel") -> None:
    """Weights as the authors of DiT draw them, but for the labels.

    Embeddings of labels keep unit deviation in place of 0.02, so that a short training learns them.
    """
    for name, part in net.named_modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        if name.endswith(("timestep_embedder.linear_1", "timestep_embedder.linear_2")):
            nn.init.normal_(part.weight, std=0.02)
    patches: Any = net.pos_embed.proj
    nn.init.xavier_uniform_(patches.weight.view(patches.weight.shape[0], -1))
    nn.init.zeros_(patches.bias)
    last: list[Any] = [block.norm1.linear for block in net.transformer_blocks]
    for layer in (*last, net.proj_out_1, net.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _vae_sizes(vae: "AutoencoderKL") -> tuple[int, int]:
    return int(vae.config.latent_channels), 2 ** (len(vae.config.block_out_channels) - 1)


def _with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey as three equal channels, or the mean of three as grey."""
    if images.shape[1] == channels:
        return images
    if channels == 1:
        return images.mean(dim=1, keepdim=True)
    return images.expand(-1, channels, -1, -1)
