"""The virtio-pmem device: its flush queue and what the virtual machine monitor does with it."""
