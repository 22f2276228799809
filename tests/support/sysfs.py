"""Small trees of sysfs, with what real hosts have in the files that are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CPU = """\
cpu_cores_count 96
simd_count 0
mem_banks_count 1
vendor_id 0
device_id 0
location_id 0
domain 0
drm_render_minor 0
unique_id 0
"""
MI300X = """\
cpu_cores_count 0
simd_count 1216
mem_banks_count 1
caches_count 506
io_links_count 8
simd_per_cu 4
gfx_target_version 90402
vendor_id 4098
device_id 29857
location_id {location}
domain {domain}
drm_render_minor {minor}
hive_id 7809984429061111111
num_sdma_engines 2
num_xcc 8
local_mem_size 0
fw_version 177
unique_id {unique_id}
max_engine_clk_ccompute 5000
"""
"""The properties of a node of KFD's topology: a name and a decimal number on each line."""
HBM = 206_141_652_992


def put(root: Path, files: dict[str, str]) -> None:
    """Write files, and the folders above them."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def link(root: Path, name: str, target: str) -> None:
    """A symbolic link of sysfs: both names below its root."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / target).mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(root / target)


def cpus(root: Path, count: int) -> None:
    """KFD's nodes of CPUs come first."""
    for node in range(count):
        put(root, {f"class/kfd/kfd/topology/nodes/{node}/gpu_id": "0"})
        put(root, {f"class/kfd/kfd/topology/nodes/{node}/properties": CPU})


def amd_gpu(
    root: Path,
    place: int,
    *,
    unique_id: int,
    function: int = 0,
    domain: int = 0,
    product: str = "AMD Instinct MI300X OAM",
    numa: int = 0,
) -> str:
    """An MI300X with a card, a render node and a node in KFD's topology; its PCI address."""
    bus, minor = 0x1B + 0x10 * place, 128 + place
    pci = f"bus/pci/devices/{domain:04x}:{bus:02x}:00.0"
    node = f"class/kfd/kfd/topology/nodes/{place + 2}"
    told = {
        "location": bus << 8 | function,
        "domain": domain,
        "minor": minor,
        "unique_id": unique_id,
    }
    put(
        root,
        {
            f"{node}/gpu_id": str(28_851 + place),
            f"{node}/name": "ip discovery",
            f"{node}/properties": MI300X.format(**told).rstrip(),
            f"{node}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {HBM}\nflags 0",
            f"{pci}/vendor": "0x1002",
            f"{pci}/numa_node": str(numa),
            f"{pci}/drm/card{place}/dev": f"226:{place}",
            f"{pci}/drm/renderD{minor}/dev": f"226:{minor}",
            f"class/drm/renderD{minor}/dev": f"226:{minor}",
        },
    )
    if product:
        put(root, {f"{pci}/product_name": product})
    link(root, f"class/drm/renderD{minor}/device", pci)
    return f"{domain:04x}:{bus:02x}:00.{function}"


def pci_chip(root: Path, address: str, device: str, **more: str) -> str:
    """A TPU chip that no driver has taken; its folder."""
    folder = f"bus/pci/devices/{address}"
    told = {"vendor": "0x1ae0", "device": device, "numa_node": "-1", **more}
    put(root, {f"{folder}/{name}": text for name, text in told.items()})
    return folder


def accel_chip(root: Path, place: int, device: str = "0x005e", **more: str) -> set[str]:
    """A chip of TPU v4 or earlier, numbered against its address; its device node."""
    folder = pci_chip(root, f"0000:00:{7 - place:02x}.0", device, **more)
    put(root, {f"class/accel/accel{place}/dev": f"240:{place}"})
    link(root, f"class/accel/accel{place}/device", folder)
    return {f"c 240:{place}"}


def vfio_chip(root: Path, place: int, device: str = "0x006f", functions: int = 1) -> set[str]:
    """A chip of TPU v5e or later: a group for each function; its device nodes. The numbers of
    vfio's nodes go by when each was bound."""
    found = set()
    for function in range(functions):
        group = place * functions + function
        folder = pci_chip(root, f"0000:00:{4 + place:02x}.{function}", device)
        link(root, f"{folder}/iommu_group", f"kernel/iommu_groups/{group}")
        put(root, {f"class/vfio/{group}/dev": f"245:{(group + 2) % 4}"})
        put(root, {f"{folder}/vfio-dev/vfio{group}/dev": f"510:{group}"})
        found |= {f"c 245:{(group + 2) % 4}", f"c 510:{group}"}
    return found
