"""Parts of the export of a trained model."""
