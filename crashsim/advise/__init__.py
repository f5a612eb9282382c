"""What ends a loss: every change that is named was run."""
