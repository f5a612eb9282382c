"""The guest: its programs, its vCPUs, its kernel's part in a sync, and recordings of real ones."""
