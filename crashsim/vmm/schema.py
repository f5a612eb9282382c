"""The properties that QEMU knows: of memory backends, of the virtio-pmem device and of the
nvdimm.

Sources: qapi/qom.json for backends (`rom` since 8.2, `offset` since 8.1, shm since 9.1; read
here whatever the version); hw/virtio/virtio-pmem.c, hw/virtio/virtio-pci.c, hw/virtio/virtio.c and
hw/pci/pci.c for the device; hw/mem/nvdimm.c and hw/mem/pc-dimm.c for the nvdimm.
"""

from __future__ import annotations

from crashsim.vmm.machine import FILE, MEMFD, RAM, SHM

TRUTH, SIZE, TEXT, AUTO, OTHER = "truth", "size", "text", "auto", "other"

_ANY_BACKEND = {
    "qom-type": TEXT,
    "id": TEXT,
    "dump": TRUTH,
    "host-nodes": OTHER,
    "merge": TRUTH,
    "policy": OTHER,
    "prealloc": TRUTH,
    "prealloc-context": TEXT,
    "prealloc-threads": OTHER,
    "reserve": TRUTH,
    "share": TRUTH,
    "size": SIZE,
    "x-use-canonical-path-for-ramblock-id": TRUTH,
}

BACKENDS: dict[str, dict[str, str]] = {
    FILE: _ANY_BACKEND
    | {
        "align": SIZE,
        "discard-data": TRUTH,
        "mem-path": TEXT,
        "offset": SIZE,
        "pmem": TRUTH,
        "readonly": TRUTH,
        "rom": AUTO,
    },
    MEMFD: _ANY_BACKEND | {"hugetlb": TRUTH, "hugetlbsize": SIZE, "seal": TRUTH},
    RAM: _ANY_BACKEND,
    SHM: _ANY_BACKEND,
}

# Memory that no virtio-pmem device can have: of an enclave.
NO_MEMORY_OF_OURS = ("memory-backend-epc",)

DEVICE = "virtio-pmem-pci"
_DEVICE_PROPERTIES = """
driver id bus memdev memaddr addr multifunction rombar romfile romsize acpi-index failover_pair_id
busnr ioeventfd vectors disable-legacy disable-modern modern-pio-notify migrate-extra
virtio-pci-bus-master-bug-migration page-per-vq ats aer iommu_platform packed indirect_desc
event_idx notify_on_empty any_layout in_order queue_reset use-started use-disabled-flag sriov-pf
"""
DEVICE_PROPERTIES = tuple(_DEVICE_PROPERTIES.split())

NVDIMM_PROPERTIES = (
    *("driver", "id", "bus", "memdev", "addr", "slot", "node"),
    *("label-size", "unarmed", "uuid"),
)
