"""What the note on collapse claims in its summary of Tian et al. 2021, and what is found."""
def stationary_checks(d): return []
rank_checks = ablation_checks = stationary_checks
