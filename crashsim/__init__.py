"""crashsim: what a power cut takes from a virtual machine's virtio-pmem disk."""

__version__ = "0.1.0"
