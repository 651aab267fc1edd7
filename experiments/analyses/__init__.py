"""What is measured and drawn of sequences and of stays when training has ended."""
