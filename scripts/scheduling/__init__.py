"""Which runs are missing, and who trains them: processes of this machine or Slurm."""
