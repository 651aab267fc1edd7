"""Pictures and stays of patients: where they come from and in which form they are kept."""
