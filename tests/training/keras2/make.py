"""Write the models of this folder with Keras 2, and their answers. Needs the package tf_keras, which the tests do not.

Usage: python tests/training/keras2/make.py
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

FOLDER = Path(__file__).parent
SIZE, CLASSES = 16, 5


def main() -> None:
    keras.utils.set_random_seed(1)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.float32)
    answers = {}
    for build in (transfer, teachable, bgr, shared, mixed, functions):
        image = keras.Input((SIZE, SIZE, 3))
        model = build(image)
        randomize(model)
        model.save(FOLDER / f"{build.__name__}.h5", include_optimizer=False)
        if build is not bgr:  # Keras 2 cannot write a slice into this format.
            model.save(FOLDER / f"{build.__name__}.keras")
        answers[build.__name__] = model(images, training=False).numpy()
    np.savez(FOLDER / "answers.npz", images=images, **answers)


def randomize(model: keras.Model) -> None:
    """Give all weights other values than a new layer's, so that weights in the wrong place are noticed."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype.is_floating:
            weight.assign(generator.uniform(0.1, 0.6, weight.shape))


def base(name: str) -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, strides=2, use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return keras.Model(image, layers.LeakyReLU(alpha=0.1)(x), name=name)


def augmentation() -> keras.Model:
    return keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2), layers.RandomZoom(0.1)])


def transfer(image: tf.Tensor) -> keras.Model:
    """TensorFlow's tutorial on transfer learning: augmentation, functions that normalize, a frozen base, a sigmoid."""
    frozen = base("frozen")
    frozen.trainable = False
    x = keras.applications.mobilenet_v2.preprocess_input(augmentation()(image))
    x = layers.GlobalAveragePooling2D()(frozen(x, training=False))
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(layers.Dropout(0.2)(x)))


def teachable(image: tf.Tensor) -> keras.Model:
    """Models in models, like those of Teachable Machine."""
    return keras.Sequential(
        [
            keras.Sequential([base("inner"), layers.GlobalAveragePooling2D()]),
            keras.Sequential(
                [
                    layers.Dense(6, activation="relu", input_shape=(4,)),
                    layers.Dense(CLASSES, activation="softmax", use_bias=False),
                ]
            ),
        ]
    )


def bgr(image: tf.Tensor) -> keras.Model:
    """A network whose input is BGR, like ResNet50's."""
    x = keras.applications.resnet50.preprocess_input(image) / 255.0
    x = layers.SeparableConv2D(4, 3)(x)
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def shared(image: tf.Tensor) -> keras.Model:
    """Layers and models that are called twice, a base that is trained in part, and a model at the end."""
    convolution = layers.Conv2D(3, 3, padding="same")
    partial = base("partial")
    partial.layers[2].trainable = False
    block = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(3, 1), layers.BatchNormalization()])
    x = layers.Rescaling(1 / 255)(image)
    x = layers.add([block(block(x)), convolution(convolution(x))])
    end = keras.Sequential([keras.Input((7, 7, 4)), layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)])
    return keras.Model(image, end(partial(x)))


def mixed(image: tf.Tensor) -> keras.Model:
    """A network trained in mixed precision, as TensorFlow's guide builds it."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    x = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    keras.mixed_precision.set_global_policy("float32")
    return keras.Model(image, layers.Activation("softmax", dtype="float32")(x))


def functions(image: tf.Tensor) -> keras.Model:
    """Functions of TensorFlow in the place of layers, such as MobileNetV3's activations."""
    x = layers.Conv2D(4, 3)(image / 127.5 - 1.0)
    x = tf.nn.relu6(x + 3.0) * (1 / 6) * x
    x = tf.reduce_mean(layers.Activation("swish")(x), axis=[1, 2])
    return keras.Model(image, tf.nn.softmax(layers.Dense(CLASSES)(x)))


if __name__ == "__main__":
    main()
