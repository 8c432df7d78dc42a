"""What keeps endpoints as they should be: rollouts, canaries, overflow and the reconciler."""
