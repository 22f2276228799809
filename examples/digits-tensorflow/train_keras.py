"""Data-parallel training with Keras (TensorFlow 2.15) and Horovod: reads handwritten digits.

    ccctl submit job.json --follow

Every rank runs this same file. The lines that make it distributed are marked with a number. Note
for later: Keras 3, which comes with TensorFlow 2.16, does not work with Horovod's Keras API.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import: errors only

import horovod.tensorflow.keras as hvd
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
parser.add_argument("--learning-rate", type=float, default=0.02, help="of each rank")
arguments = parser.parse_args()

# 1. Join the gang. The launcher has told this process its rank and where to find the others.
hvd.init()
tf.keras.utils.set_random_seed(0)

# 2. One device for each rank. A worker sees all devices that its job holds on this node, so its
#    own is the one with the number of its local rank.
gpus = tf.config.list_physical_devices("GPU")
if gpus:
    tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
    tf.config.experimental.set_memory_growth(gpus[hvd.local_rank()], True)
else:
    tf.config.threading.set_intra_op_parallelism_threads(
        int(os.environ.get("OMP_NUM_THREADS", "1"))
    )

pixels, digits = load_digits(return_X_y=True)  # 1,797 images of 8 × 8, shipped with scikit-learn
images = (pixels / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(images))  # the same on every rank
train, test = order[:1437], order[1437:]

# 3. Each rank reads its own part of the training data: as many images on each, or they would wait.
share = len(train) // hvd.size()
mine = train[hvd.rank() * share : (hvd.rank() + 1) * share]

model = tf.keras.Sequential(
    [
        tf.keras.layers.Input((64,)),
        tf.keras.layers.Dense(256, "relu"),
        tf.keras.layers.Dense(256, "relu"),
        tf.keras.layers.Dense(10),
    ]
)

# 4. The ranks take one step together, on a batch that is `size` times as large: a larger step fits.
optimizer = tf.keras.optimizers.SGD(arguments.learning_rate * hvd.size(), momentum=0.9)
model.compile(
    optimizer=hvd.DistributedOptimizer(optimizer),
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

callbacks = [
    # 5. All start from the weights of rank 0.
    hvd.callbacks.BroadcastGlobalVariablesCallback(0),
    # 6. What a rank measures is true of its part alone: average before it is printed.
    hvd.callbacks.MetricAverageCallback(),
]
first = hvd.rank() == 0
if first:
    print(f"training on {hvd.size()} ranks, {len(gpus)} GPUs here", flush=True)

    class Progress(tf.keras.callbacks.Callback):
        """Says once per epoch how far the training is."""

        def on_epoch_end(self, epoch, logs=None):
            """Called by Keras."""
            print(f"epoch {epoch + 1}/{arguments.epochs}  loss {logs['loss']:.4f}", flush=True)
            done = (epoch + 1) / arguments.epochs
            told = {"step": epoch + 1, "progress": done, "metrics": {"loss": float(logs["loss"])}}
            with open(os.environ.get("CC_REPORT", os.devnull), "a") as report:
                print(json.dumps(told), file=report)

    callbacks.append(Progress())

model.fit(
    images[mine],
    digits[mine],
    batch_size=arguments.batch_size,
    epochs=arguments.epochs,
    callbacks=callbacks,
    verbose=0,
)

# 7. All ranks hold the same model now. One of them tests it and writes it down.
if first:
    _, accuracy = model.evaluate(images[test], digits[test], verbose=0)

    folder = Path(os.environ.get("CC_JOB_DIR", "."))  # the job's own, the same for every attempt
    path = folder / "model.keras"
    tf.keras.Model(model.inputs, model.outputs).save(path)  # without Horovod, so it loads anywhere
    result = {"test_accuracy": accuracy, "epochs": arguments.epochs, "model": str(path)}
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    print(f"test accuracy {accuracy:.4f}, model saved as {path}", flush=True)
