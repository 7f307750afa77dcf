"""What every recipe and every command shares: a run's folder, its config, its training, and how it is drawn from,
measured and shown. It knows no recipe."""
