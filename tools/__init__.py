"""What is made from the package for its documents."""
