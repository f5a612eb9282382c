"""The disk: a write pipe, a volatile cache, and FLUSH."""
