"""How a training step is computed, saved and spread over processes; scikit-learn's and MiniSom's fits."""
