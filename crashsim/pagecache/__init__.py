"""The host's page cache: dirty pages of each backing file, the flusher, background writeback,
fsync."""
