"""What drives a run: it polls, records, decides and executes, and knows that it lives."""
