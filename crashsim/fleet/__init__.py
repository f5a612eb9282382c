"""What failures take from many hosts in a year."""
