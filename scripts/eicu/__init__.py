"""The eICU Collaborative Research Database as T-DPSOM's authors prepared it; run by scripts/prepare_eicu.py."""
