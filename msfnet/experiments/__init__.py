"""Many runs: which ones a sweep is made of, how they share machines, and which is best."""
