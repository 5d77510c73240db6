"""A residual network on small images, split over three nodes; its own skip connections stay inside the nodes.

python launch.py --scenario=examples/residual_images.py --draw
python launch.py --scenario=examples/residual_images.py --sweep=failure_combinations

camera -> edge -> fog -> cloud. A residual block's skip connection is a line of Python inside a stage: it dies with its
node. A skip *hyperconnection* joins nodes: it carries information around a node that has died.
"""

import flax.linen as nn
import jax.numpy as jnp

import resilinet_jax as rj


class Convolution(nn.Module):
    """3x3, as nine shifted copies and a dense layer: XLA runs that many times faster on CPU than `nn.Conv`."""

    filters: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        """Feature maps [images, height, width, channels]."""
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        strided = [each[:, :: self.stride, :: self.stride] for each in shifted]
        return nn.Dense(self.filters)(jnp.concatenate(strided, -1))


class Block(nn.Module):
    """Two 3x3 convolutions beside a skip connection of the node's own."""

    filters: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        """Feature maps, normalised in groups: image by image, whatever has failed."""
        y = nn.relu(nn.GroupNorm(4)(Convolution(self.filters, self.stride)(x)))
        y = nn.GroupNorm(4)(Convolution(self.filters)(y))
        if x.shape != y.shape:
            x = nn.Conv(self.filters, (1, 1), self.stride)(x)
        return nn.relu(x + y)


class Stem(nn.Module):
    """On the camera, which never fails: bytes to feature maps."""

    filters: int

    @nn.compact
    def __call__(self, x, training):
        """The first feature maps; `training` would tell dropout, of which there is none here."""
        return nn.relu(Convolution(self.filters)(x.astype(jnp.float32) / 127.5 - 1))


class Blocks(nn.Module):
    """What a node computes; the cloud, which has `classes`, ends with one logit for each."""

    filters: int
    stride: int = 1
    classes: int | None = None

    @nn.compact
    def __call__(self, x, training):
        """Feature maps, or logits [images, classes]."""
        x = Block(self.filters, self.stride)(x)
        return x if self.classes is None else nn.Dense(self.classes)(x.mean((1, 2)))


def build_network(classes, filters, image_size):
    """The graph, a stage for each node, an adapter for the one hyperconnection that changes shape."""
    graph = rj.build_chain(("camera", "edge", "fog", "cloud"))  # with a skip around edge and one around fog
    stages = {
        "camera": Stem(filters),
        "edge": Blocks(filters),
        "fog": Blocks(2 * filters, stride=2),
        "cloud": Blocks(2 * filters, classes=classes),
    }
    # The edge leaves the shape as it is, so the skip around it fits as it is. The fog halves height and width.
    adapters = {"edge->cloud": nn.Conv(2 * filters, (1, 1), strides=2)}
    return rj.Network(graph, stages, adapters)


def load(settings, preset):
    """CIFAR-10 if there is any, else handwritten digits; kept on the device as bytes."""
    images = rj.load_images(settings.dataset, settings.data_folder, preset.network["image_size"])
    splits = images.split(settings.seed, preset.train_examples)
    feed = rj.Resident(splits, rj.random_affine if preset.augment else None)
    return rj.Data(feed, splits.classes, images.name, images.description, images.rows, images.fingerprint())


SCENARIO = rj.Scenario(
    name="residual_images",  # results go to results/residual_images
    datasets=("digits", "cifar10"),  # what --dataset may be
    load=load,
    build_network=build_network,
    failure_settings={  # failure probabilities; the camera and the cloud never fail
        "no failure": {},
        "normal": {"edge": 0.08, "fog": 0.03},
        "hazardous": {"edge": 0.22, "fog": 0.15},
    },
    presets={
        "quick": rj.Preset(
            runs=2,
            epochs=15,
            batch_size=32,
            learning_rate=0.003,
            failout_rate=0.1,
            train_examples=2000,
            augment=False,
            network={"filters": 8, "image_size": 16},  # goes to build_network; --image_size changes it
        ),
    },
)
