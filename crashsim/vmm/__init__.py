"""What people run: command lines, libvirt's XML and monitor commands, read as their programs do,
and what of it loses data."""
