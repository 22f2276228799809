"""Data-parallel training with PyTorch and Horovod: reads handwritten digits.

    ccctl submit job.json --follow

Every rank runs this same file. The lines that make it distributed are marked with a number; the
rest is PyTorch as you know it. It runs alone just as well: `python train_torch.py`.
"""

import argparse
import json
import os
import time
from pathlib import Path

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
parser.add_argument("--learning-rate", type=float, default=0.01, help="of each rank")
arguments = parser.parse_args()

# 1. Join the gang. The launcher has told this process its rank and where to find the others.
hvd.init()
torch.manual_seed(0)

# 2. One device for each rank. A worker sees all devices that its job holds on this node, so its
#    own is the one with the number of its local rank.
if torch.cuda.is_available() and hvd.nccl_built():
    device = torch.device("cuda", hvd.local_rank())
    torch.cuda.set_device(device)
else:
    device = torch.device("cpu")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

pixels, digits = load_digits(return_X_y=True)  # 1,797 images of 8 × 8, shipped with scikit-learn
images = torch.tensor(pixels / 16, dtype=torch.float32)
labels = torch.tensor(digits, dtype=torch.long)
order = torch.randperm(len(images))  # the same on every rank, because the seed is
train, test = order[:1437], order[1437:]

# 3. Each rank reads its own part of the training data.
data = TensorDataset(images[train], labels[train])
sampler = DistributedSampler(data, num_replicas=hvd.size(), rank=hvd.rank(), seed=0)
loader = DataLoader(data, batch_size=arguments.batch_size, sampler=sampler)

model = nn.Sequential(
    nn.Linear(64, 512),
    nn.ReLU(),
    nn.Linear(512, 512),
    nn.ReLU(),
    nn.Linear(512, 10),
).to(device)
loss_of = nn.CrossEntropyLoss()

# 4. The ranks take one step together, on a batch that is `size` times as large: a larger step fits.
optimizer = torch.optim.SGD(
    model.parameters(), lr=arguments.learning_rate * hvd.size(), momentum=0.9
)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

# 5. All start from the weights of rank 0.
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
hvd.broadcast_optimizer_state(optimizer, root_rank=0)

first = hvd.rank() == 0
if first:
    print(f"training on {hvd.size()} ranks, device {device}", flush=True)

began = time.perf_counter()
for epoch in range(1, arguments.epochs + 1):
    sampler.set_epoch(epoch)
    total = torch.zeros(())
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_of(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach().cpu()

    # 6. What a rank measures is true of its part alone: average before you print.
    mean = hvd.allreduce(total / len(loader), name="loss").item()
    if first:
        seconds = time.perf_counter() - began
        print(f"epoch {epoch}/{arguments.epochs}  loss {mean:.4f}  {seconds:.1f} s", flush=True)
        told = {"step": epoch, "progress": epoch / arguments.epochs, "metrics": {"loss": mean}}
        with open(os.environ.get("CC_REPORT", os.devnull), "a") as report:  # `ccctl show` tells it
            print(json.dumps(told), file=report)

# 7. All ranks hold the same model now. One of them tests it and writes it down.
if first:
    with torch.no_grad():
        guesses = model(images[test].to(device)).argmax(dim=1).cpu()
    accuracy = (guesses == labels[test]).float().mean().item()

    folder = Path(os.environ.get("CC_JOB_DIR", "."))  # the job's own, the same for every attempt
    path = folder / "model.pt"
    torch.save(model.state_dict(), path)
    result = {"test_accuracy": accuracy, "epochs": arguments.epochs, "model": str(path)}
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    print(f"test accuracy {accuracy:.4f}, model saved as {path}", flush=True)
