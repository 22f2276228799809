"""Data-parallel training with PyTorch alone (DistributedDataParallel): reads handwritten digits.

    ccctl submit job.json --follow

The same training as `examples/digits`, without Horovod. Every rank runs this same file and finds
the variables that `torchrun` would set; the command in job.json is therefore plain `python`. The
lines that make it distributed are marked with a number.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
parser.add_argument("--learning-rate", type=float, default=0.01, help="of each rank")
arguments = parser.parse_args()

# 1. One device for each rank: the one with the number of its local rank.
if torch.cuda.is_available():
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
else:
    device = torch.device("cpu")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

# 2. Join the gang: rank, size and meeting point stand in the environment.
dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)

pixels, digits = load_digits(return_X_y=True)  # 1,797 images of 8 × 8, shipped with scikit-learn
images = torch.tensor(pixels / 16, dtype=torch.float32)
labels = torch.tensor(digits, dtype=torch.long)
order = torch.randperm(len(images))  # the same on every rank, because the seed is
train, test = order[:1437], order[1437:]

# 3. Each rank reads its own part of the training data.
data = TensorDataset(images[train], labels[train])
sampler = DistributedSampler(data, seed=0)
loader = DataLoader(data, batch_size=arguments.batch_size, sampler=sampler)

# 4. The wrapper gives all ranks the weights of rank 0, and averages their gradients at each step.
model = DistributedDataParallel(
    nn.Sequential(
        nn.Linear(64, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    ).to(device)
)
loss_of = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=arguments.learning_rate * size, momentum=0.9)

if rank == 0:
    print(f"training on {size} ranks, device {device}", flush=True)

began = time.perf_counter()
for epoch in range(1, arguments.epochs + 1):
    sampler.set_epoch(epoch)
    total = torch.zeros((), device=device)
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_of(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach()

    # 5. What a rank measures is true of its part alone: average before you print.
    dist.all_reduce(total)
    if rank == 0:
        mean = total.item() / len(loader) / size
        seconds = time.perf_counter() - began
        print(f"epoch {epoch}/{arguments.epochs}  loss {mean:.4f}  {seconds:.1f} s", flush=True)

# 6. All ranks hold the same model now. One of them tests it and writes it down.
if rank == 0:
    with torch.no_grad():
        guesses = model.module(images[test].to(device)).argmax(dim=1).cpu()
    accuracy = (guesses == labels[test]).float().mean().item()

    folder = Path(os.environ.get("CC_JOB_DIR", "."))  # the job's own, the same for every attempt
    path = folder / "model.pt"
    torch.save(model.module.state_dict(), path)
    result = {"test_accuracy": accuracy, "epochs": arguments.epochs, "model": str(path)}
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    print(f"test accuracy {accuracy:.4f}, model saved as {path}", flush=True)

# 7. Leave together. Gloo clears an exchange away in a thread of its own, and a rank whose Python
#    ends under it can be aborted (as in PyTorch's issue 190489): the barrier gives it the time.
dist.barrier()
dist.destroy_process_group()
